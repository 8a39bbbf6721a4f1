"""What lies in a run's folder, and whose it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data_shards.errors import InputError
from distributed_pretrain.run_folder.folder import RunFolder


def test_a_run_folder_belongs_to_one_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distributed_pretrain.run_folder.folder.LOCK_PATIENCE_SECONDS", 0.0)
    run = RunFolder(tmp_path / "run")
    with run.locked():
        with (
            pytest.raises(InputError, match=rf"in use by process {os.getpid()} on "),
            run.locked(),
        ):
            pass
        assert (run.path / "lock").exists()
    with run.locked():
        pass
    assert not run.path.exists()
