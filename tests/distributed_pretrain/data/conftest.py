"""What several files of this folder stand on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fuzz.sound_shards import write_sound_shards


@pytest.fixture(scope="session")
def _built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sound_shards(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def sound_shards(_built: Path, tmp_path: Path) -> Path:
    """Small shards of every split, a test's own copy, to be changed."""
    return Path(shutil.copytree(_built, tmp_path / "shards"))
