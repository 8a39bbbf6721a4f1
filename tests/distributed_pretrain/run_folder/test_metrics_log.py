from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.files.json_lines import read_lines
from distributed_pretrain.run_folder.metrics_log import MetricsLog, is_timing
from tests.full_disk import full_disk


def test_resuming_cuts_later_and_half_written_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, resume_step=0)
    for step in (1, 2, 3):
        log.write(step, "train", {"total": 0.5 * step, "step_seconds": 1.0})
    log.close()
    with path.open("a") as file:
        file.write('{"step": 4, "spl')
    MetricsLog(path, resume_step=2).close()
    assert [line["step"] for line in read_lines(path)] == [1, 2]
    assert read_lines(path)[1]["total"] == 1.0


def test_timing_fields_are_the_named_ones() -> None:
    assert is_timing("pairs_per_second")
    assert is_timing("data_wait_share")
    assert not is_timing("total")


def test_metrics_that_a_full_disk_refuses_are_one_clear_line(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", resume_step=0)
    with (
        full_disk(),
        pytest.raises(InputError, match=r"metrics.jsonl: not written .*free some space"),
    ):
        log.write(1, "train", {"total": 1.0})
    log.close()
