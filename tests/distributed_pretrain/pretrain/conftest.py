from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import short_run as short


@pytest.fixture
def run(short_run: Path, tmp_path: Path) -> Path:
    """A run after its fifth step of six, to go on with; `short_run` is its end."""
    return short.cut_back(short_run, tmp_path / "run")
