from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.errors import InputError
from distributed_pretrain.run_folder.folder import RunFolder, is_timing
from distributed_pretrain.training.recorder import Recorder
from tests.full_disk import full_disk


def test_resuming_cuts_later_and_half_written_lines(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    recorder = Recorder(run, resume_step=0)
    for step in (1, 2, 3):
        recorder.record(step, "train", {"total": 0.5 * step, "step_seconds": 1.0})
    recorder.close()
    with run.metrics.open("a") as file:
        file.write('{"step": 4, "spl')
    Recorder(run, resume_step=2).close()
    assert [line["step"] for line in run.read_metrics()] == [1, 2]
    assert run.read_metrics()[1]["total"] == 1.0


def test_timing_fields_are_the_named_ones() -> None:
    assert is_timing("pairs_per_second")
    assert is_timing("data_wait_share")
    assert not is_timing("total")


def test_metrics_that_a_full_disk_refuses_are_one_clear_line(tmp_path: Path) -> None:
    recorder = Recorder(RunFolder(tmp_path), resume_step=0)
    recorder.flush()  # TensorBoard's own thread has nothing to write then
    with (
        full_disk(),
        pytest.raises(InputError, match=r"metrics.jsonl: not written .*free some space"),
    ):
        recorder.record(1, "train", {"total": 1.0})
    recorder.close()
