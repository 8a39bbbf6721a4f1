from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data_shards.errors import InputError
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.metrics import is_timing
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


@pytest.mark.parametrize("how", ["deleted", "renamed", "a file", "full"])
def test_tensorboards_troubles_are_a_warning_and_the_metrics_go_on(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path)
    if how == "a file":
        run.tensorboard.write_text("in the way")
    recorder = Recorder(run, resume_step=0)
    if how == "deleted":
        shutil.rmtree(run.tensorboard)
    elif how == "renamed":
        run.tensorboard.rename(tmp_path / "elsewhere")
    recorder.record(1, "train", {"total": 1.0})
    with full_disk() if how == "full" else contextlib.nullcontext():
        recorder.flush()
    recorder.record(2, "train", {"total": 1.0})
    recorder.show(2, {"noise": np.zeros((4, 4, 3), np.uint8)})
    recorder.close()
    assert [line["step"] for line in run.read_metrics()] == [1, 2]
    said = capsys.readouterr().err
    assert said.count("warning: ") == 1
    assert "tensorboard: not written" in said


def test_lines_of_a_run_that_others_wrote_into_are_refused_by_their_number(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    good = '{"step": 1, "split": "train", "total": 1.0}\n'
    for odd in ('{"step": -1, "split": "train"}', '{"step": 1, "split": "train", "total": "x"}'):
        run.metrics.write_text(good + odd + "\n" + good)
        with pytest.raises(InputError, match=r"metrics\.jsonl, line 2: not such a line"):
            Recorder(run, resume_step=1)


def test_event_files_that_were_copied_double_no_point(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for resume_step, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        recorder = Recorder(run, resume_step=resume_step)
        for step in steps:
            recorder.record(step, "train", {"total": float(step)})
        recorder.close()
    for path in list(run.tensorboard.iterdir()):
        for name in (f"{path.name}.copy", f"Copy of {path.name}"):
            shutil.copy(path, path.with_name(name))
    events = EventAccumulator(str(run.tensorboard)).Reload()
    points = [(point.step, point.value) for point in events.Scalars("train/total")]
    assert points == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
