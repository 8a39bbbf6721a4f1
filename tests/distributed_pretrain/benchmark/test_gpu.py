"""What `benchmark gpu` does with parts that fail, hang or were not run; and what it asks."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from data_shards.errors import InputError
from data_shards.processes import start_server
from distributed_pretrain.__main__ import main
from distributed_pretrain.benchmark.gpu import MINUTES, PARTS
from distributed_pretrain.benchmark.on_gpu import page
from distributed_pretrain.benchmark.on_gpu.page import targets_of
from distributed_pretrain.benchmark.on_gpu.parts import (
    Bench,
    Part,
    Report,
    Result,
    flags,
    run_part,
    warm_up,
)
from distributed_pretrain.benchmark.on_gpu.trace import figures_of, union
from tests.tiny.short_run import the_error

pytestmark = pytest.mark.xdist_group("benchmark")

CARD = "NVIDIA A100-SXM4-40GB"


def works(bench: Bench, report: Report) -> None:
    report(limit=bench.seconds)
    report(last=2.0)


def fails(bench: Bench, report: Report, *, error: Exception) -> None:
    report(first=1.0)
    raise error


def hangs(bench: Bench, report: Report) -> None:
    report(first=1.0)
    time.sleep(600)


def dies(bench: Bench, report: Report) -> None:
    os._exit(9)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench("cpu", True, tmp_path, tmp_path, tmp_path)


def run(part: Part, bench: Bench, *, most: float = 100) -> Result:
    processes = start_server(preload=[__name__])
    warm_up(processes)
    return run_part(part, bench, processes, most=most)


@pytest.mark.slow
def test_a_part_is_told_what_it_may_take_and_its_figures_come_in_order(bench: Bench) -> None:
    for most, limit in ((100, 50.0), (20, 20.0)):
        result = run(Part("", 50, works), bench, most=most)
        assert list(result.figures.items()) == [("limit", limit), ("last", 2.0)]
        assert result.error is None


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("data: no such folder: make it"), "data: no such folder: make it"),
        pytest.param(
            torch.OutOfMemoryError("CUDA out of memory.\nTried"),
            "OutOfMemoryError: CUDA out of",
            marks=pytest.mark.slow,
        ),
        pytest.param(AssertionError(), "AssertionError: ", marks=pytest.mark.slow),
    ],
)
def test_a_part_that_fails_leaves_its_figures_and_one_line(
    bench: Bench, error: Exception, line: str
) -> None:
    result = run(Part("", 50, partial(fails, error=error)), bench)
    assert result.figures == {"first": 1.0}
    assert result.error is not None
    assert result.error.startswith(line)
    assert "\n" not in result.error


@pytest.mark.slow
def test_a_part_that_hangs_or_is_killed_ends(bench: Bench) -> None:
    hung = run(Part("", 8, hangs), bench)
    assert (hung.figures, hung.error) == ({"first": 1.0}, "stopped at its time limit")
    assert hung.seconds < 60
    killed = run(Part("", 50, dies), bench)
    assert killed.error == "its process was killed, probably for want of memory"


def test_the_limits_are_eight_minutes_together() -> None:
    assert sum(part.seconds for part in PARTS.values()) <= 60 * MINUTES == 480


def test_the_page_says_what_was_asked_what_failed_and_what_was_not_run(tmp_path: Path) -> None:
    parts = {name: PARTS[name] for name in ("lovt_a100", "pairs", "trace")}
    results = {
        "lovt_a100": Result({"pairs_per_second": 1200.0, "data_wait_share": 0.2, "mfu": 0.3}),
        "trace": Result(error="OutOfMemoryError: CUDA out of memory", seconds=3.0),
    }
    page.write(tmp_path, parts, results, facts={"device": CARD}, card=CARD)
    lines = (tmp_path / "gpu.md").read_text().splitlines()
    assert "| pairs_per_second | 1200 | at least 1e+03 | met |" in lines
    assert "| data_wait_share | 0.2 | at most 0.03 | NOT MET |" in lines
    assert "| mfu | 0.3 |  |  |" in lines
    assert "Ended after 3 s: OutOfMemoryError: CUDA out of memory" in lines
    assert lines.count(page.NOT_RUN) == 2
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"]["trace"]["figures"] == {}


def test_what_is_asked_depends_on_the_card() -> None:
    results = {"lovt_a100": Result({"pairs_per_second": 1500.0})}
    reached = {
        card: [target.is_reached for target in targets_of(results, card)]
        for card in (CARD, "NVIDIA H100 80GB HBM3", "NVIDIA H200", "NVIDIA L40S")
    }
    assert list(reached.values()) == [[True], [False], [False], []]
    assert targets_of(results, None) == []


def test_a_part_that_fails_does_not_hide_what_was_asked_of_it(tmp_path: Path) -> None:
    parts = {name: PARTS[name] for name in ("lovt_a100", "pairs", "trace")}
    results = {
        "lovt_a100": Result({"data_wait_share": 0.01}, error="out of memory"),
        "trace": Result(error="out of memory"),
    }
    missed = [
        f"lovt_a100: {figure}: not measured (out of memory): MISSED"
        for figure in ("pairs_per_second", "rate_to_bare_loop")
    ]
    assert page.missing_of(results, CARD) == missed
    assert page.missing_of(results, None) == []
    lines = page.page(parts, results, facts={}, card=CARD).splitlines()
    assert [line for line in lines if "MISSED" in line] == [f"- {each}" for each in missed]
    table = lines.index("| figure | value | asked | |")
    assert lines[table - 1] == ""


def test_time_in_intervals_is_counted_once_and_gaps_lie_between() -> None:
    ran = [(0, 4_000_000), (1_000_000, 2_000_000), (3_000_000, 5_000_000), (8_000_000, 10_000_000)]
    assert union(ran) == [(0, 5_000_000), (8_000_000, 10_000_000)]
    assert figures_of(ran) == {"launches": 4.0, "busy_share": 0.7, "longest_gap_ms": 3.0}
    assert figures_of([])["launches"] == 0


def test_switches_of_torch_come_back() -> None:
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    with flags((cudnn, "benchmark", not before)):
        assert cudnn.benchmark is not before
    assert cudnn.benchmark is before


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "gpu", f"output={tmp_path / 'out'}"]) == 2
    error = the_error(capsys.readouterr().err)
    assert "NVIDIA" in error
    assert "device=cpu tiny=true" in error
    assert not (tmp_path / "out").exists()


def test_a_part_and_its_title_stay_together() -> None:
    longer = replace(PARTS["trace"], seconds=90)
    assert "At most 90 s." in page.page({"trace": longer}, {}, facts={}, card=None)
