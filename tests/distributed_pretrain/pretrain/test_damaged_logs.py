"""Logs of a run that a crash left half-written, that others wrote into, or that are no files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from distributed_pretrain.run_folder.folder import RunFolder
from tests.tiny import short_run as short

pytestmark = pytest.mark.xdist_group("short_run")


def test_lost_metrics_are_said(
    run: Path, tiny_profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "metrics.jsonl").unlink()
    assert short.train(tiny_profile, run) == 0
    assert "has nothing between the steps 0 and 5" in capsys.readouterr().err
    assert {line["step"] for line in RunFolder(run).read_metrics()} == {6}


def test_what_a_crash_left_at_the_end_of_logs_is_cut_off(
    run: Path, short_run: Path, tiny_profile: Path
) -> None:
    for name, tail in {"metrics": bytes(300) + b"\n\xff\n[[", "starts": b"\xff\xfe\n{"}.items():
        with (run / f"{name}.jsonl").open("ab") as file:
            file.write(tail)
    assert short.train(tiny_profile, run) == 0
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 3, 4, 5, 6, 6]
    assert short.same_weights(run, short_run)


@pytest.mark.parametrize("name", ["metrics.jsonl", "skipped.jsonl", "quarantine.jsonl"])
def test_a_bad_line_before_good_ones_is_named_by_its_number(
    name: str, run: Path, tiny_profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"step": 1, "split": "train", "key": "a", "samples_consumed": 8}
    lines = [json.dumps(good if name != "metrics.jsonl" else {"step": 1, "split": "train"})] * 2
    (run / name).write_text("\n".join([lines[0], '{"step": 1', lines[1]]) + "\n")
    assert short.train(tiny_profile, run) == 2
    assert f"{name}, line 2: not a line of JSON" in short.the_error(capsys.readouterr().err)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["metrics.jsonl", "starts.jsonl", "identity.json", "config.yaml"])
def test_a_pipe_in_the_place_of_a_file_does_not_hang(
    name: str, run: Path, tiny_profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    assert short.train(tiny_profile, run) == 2
    assert f"{name}: " in short.the_error(capsys.readouterr().err)
