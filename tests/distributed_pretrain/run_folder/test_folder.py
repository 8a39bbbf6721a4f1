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


def test_a_path_with_a_zero_byte_is_refused() -> None:
    with pytest.raises(InputError, match="zero byte"):
        RunFolder(Path("a\0b"))


def test_progress_is_told_by_the_last_good_lines(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    good = '{"step": 6, "split": "train", "total": 0.5, "step_seconds": 2.0}\n'
    run.metrics.write_bytes(good.encode() + b'{"step": 7, "split": "train", "total": "x"}\n\xff\n')
    run.starts.path.write_bytes(b'[]\n{"total_steps": 12}\n{"total_steps": 1e400}\n')
    progress = run.progress()
    assert progress is not None
    assert (progress.step, progress.loss, progress.total_steps) == (6, 0.5, None)
    run.starts.append({"total_steps": 12})
    progress = run.progress()
    assert progress is not None
    assert progress.seconds_left == 12.0
    run.starts.append({"total_steps": 2**52})
    progress = run.progress()
    assert progress is not None
    assert progress.seconds_left is None
    run.metrics.write_bytes(bytes(300) + b"\n")
    with pytest.raises(InputError, match="not a line of JSON"):
        run.progress()
