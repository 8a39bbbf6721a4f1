"""What tests of the launcher share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.launch.rank_job import RankJob


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RankJob:
    job = RankJob(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(job.modules))
    return job
