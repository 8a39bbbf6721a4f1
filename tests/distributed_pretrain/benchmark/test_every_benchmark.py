"""Every benchmark starts, measures at tiny sizes and concludes. Never a time."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from distributed_pretrain.__main__ import main
from distributed_pretrain.alignment.pairwise import products
from distributed_pretrain.benchmark import pairs
from distributed_pretrain.benchmark.gpu import PARTS
from distributed_pretrain.benchmark.loader import ENDS
from distributed_pretrain.benchmark.on_gpu.page import ASKED, PROFILES
from distributed_pretrain.benchmark.pairs import FORMS
from distributed_pretrain.commands import BENCHMARKS
from tests.ffcv import needs_ffcv
from tests.paths import ROOT

Start = Callable[..., dict[str, Any]]

SIZES = (
    *("batch=2", "image_size_px=32", "backbone=resnet18", "width=0.125", "hidden_size=32"),
    *("layers=1", "embedding_dim=16", "projection_hidden_dim=32"),
)
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from Linux's /proc")
# One worker: processes are started from it.
pytestmark = pytest.mark.xdist_group("benchmark")


@pytest.fixture
def start(capsys: pytest.CaptureFixture[str]) -> Iterator[Start]:
    """`benchmark VERB key=value ...`: its line of JSON, and what stands above it as `printed`."""

    def start(*arguments: str) -> dict[str, Any]:
        assert main(["benchmark", *arguments]) == 0
        *printed, last = capsys.readouterr().out.splitlines()
        report: dict[str, Any] = json.loads(last)
        for target in report["targets"]:
            assert any(f"{target['name']}: " in line for line in printed)
        return report | {"printed": "\n".join(printed)}

    threads = torch.get_num_threads()
    yield start
    torch.set_num_threads(threads)


def target_names(report: dict[str, Any]) -> list[str]:
    return [target["name"] for target in report["targets"]]


def test_shards(start: Start) -> None:
    report = start("shards", "images=6", "distinct_images=2", "width_px=64", "workers=1")
    bare, build = report["seconds"].values()
    assert 0 < bare < build
    assert report["ratio"] == bare / build
    assert target_names(report) == ["build / bare loop (ceiling 1)"]


def test_shards_of_dicoms(start: Start) -> None:
    pytest.importorskip("pydicom", reason="pip install 'radalign[dicom]'")
    sizes = ("images=6", "distinct_images=2", "dicom_side_px=64", "workers=1")
    report = start("shards", "source=rsna", *sizes)
    bare, build = report["seconds"].values()
    assert report["ratio"] == bare / build
    assert "6 DICOMs 64 px wide" in report["printed"]


def test_opening(start: Start) -> None:
    report = start("opening", "shards=3", "studies_a_shard=20", "global_batch=4")
    assert report["resume_seconds"] > 0
    assert report["open_seconds"] > 0
    assert report["bytes_a_study"] >= 0
    assert report["open_processor_seconds"] > 0
    assert target_names(report) == [
        "seconds to open",
        "seconds to resume",
        "MiB more by reading on",
    ]


def test_loader(start: Start) -> None:
    sizes = ("images=256", "batch=32", "longest_side_px=64", "image_size_px=32")
    report = start("loader", *sizes, "cores=1", "rounds=1", "ffcv=false")
    rates = report["images_per_second"]
    assert all(rate > 0 for rate in rates.values())
    assert report["ratio"] == rates["pipeline"] / rates["torchvision pipeline"]
    assert target_names(report) == [
        "pipeline / torchvision's (aim 12)",
        "without augmentation, in threads / decode on all cores",
        "without augmentation, a process a core / decode on all cores",
        "lock held, in threads, ms a sample",
        "lock held, in a process of its own, ms a sample",
    ]
    assert all(milliseconds > 0 for milliseconds in report["lock_held_ms"].values())


@pytest.mark.slow
@needs_ffcv
def test_loader_beside_that_of_ffcv() -> None:
    """In a process of its own: what FFCV compiled here would raise KeyErrors when pytest ends."""
    sizes = ("images=256", "batch=32", "longest_side_px=64", "image_size_px=32")
    words = ("benchmark", "loader", *sizes, "cores=1", "rounds=1", "ffcv=true")
    command = [sys.executable, "-m", "distributed_pretrain", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    rates = report["images_per_second"]
    for end, target in zip(ENDS, report["targets"][5:], strict=True):
        ours, theirs = (rates[f"{name}, {end}"] for name in ("from a beton", "FFCV's own"))
        assert target["name"] == f"from a beton / FFCV's own, {end}"
        assert target["value"] == ours / theirs


def test_downstream(start: Start) -> None:
    sizes = ("images=16", "image_size_px=64", "backbone=resnet18", "width=0.125", "batch=8")
    report = start("downstream", *sizes, "epochs=1", "head_steps=2", "head_batch=4")
    assert report["ratio"] == report["seconds"]["images"][0] / report["seconds"]["kept"][0]
    assert report["apart"] < 1e-3
    assert target_names(report) == [
        *("images / kept features", "figures apart"),
        *("unet: trainer / bare loop", "unet: data wait"),
        *("yolov3: trainer / bare loop", "yolov3: data wait"),
    ]
    for head in ("unet", "yolov3"):
        assert 0 < report[head]["data_wait_share"] < 1
        assert report[head]["ratio"] > 0


def test_step(start: Start) -> None:
    profile = ROOT / "configs" / "pretrain" / "chexpert_a100.yaml"
    report = start("step", *SIZES, "frozen_layers=1", "steps=2", f"profiles=[{profile}]")
    both = report["trainer_step_seconds"], report["bare_step_seconds"]
    assert 0 <= report["padding_share"] < 1 < report["trainer_tokens_per_second"]
    assert all(seconds > 0 for seconds in both)
    assert report["trainer_to_bare_ratio"] == both[0] / both[1]
    assert 0 <= report["data_wait_share"] < 1
    assert 0 < report["augmentation_share"] < 1
    assert target_names(report) == [
        "trainer / bare loop",
        "data wait of a step",
        "chexpert_a100: waits",
        "tokens computed / real, packed",
    ]
    assert all(each["value"] <= each["limit"] for each in report["targets"][2:])
    (counted,) = report["on_a_gpu"]
    assert counted["profile"] == "chexpert_a100"
    assert counted["launches"] > 500
    assert counted["waits"] == 1


@on_linux
def test_loss_has_a_row_for_every_form_in_one_process_and_on_ranks(start: Start) -> None:
    sizes = ("batch_sizes=[32]", "big_batch=64", "dim=8", "chunk_size=8")
    report = start("loss", *sizes, "repeats=1", "threads=2")
    alone, gathered = ["plain", "chunked", "open_clip"], ["open_clip, local loss"]
    expected = [*product([1], alone), *product([2], alone + gathered)]
    assert [(row["ranks"], row["form"]) for row in report["rows"]] == expected
    assert all(row["seconds"] > 0 for row in report["rows"])
    assert target_names(report) == ["GiB of chunked at batch 64"]
    assert "GiB of chunked at batch 64: " in report["printed"]


@on_linux
def test_regions_with_and_without_chunks(start: Start) -> None:
    sizes = ("images=6", "regions=4", "sentences=2", "dim=8", "chunk_size=5")
    report = start("regions", *sizes, "repeats=1", "threads=1")
    assert [row["form"] for row in report["rows"]] == ["plain", "chunked"]
    assert all(row["seconds"] > 0 for row in report["rows"])
    assert target_names(report) == ["chunked / plain", "GiB of chunked"]


@on_linux
@pytest.mark.parametrize("method", ["limitr", "gloria"])
@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_pairs_has_a_row_and_verdicts_for_every_form_that_this_cpu_can_run(
    start: Start, monkeypatch: pytest.MonkeyPatch, method: str, has_bfloat16: bool
) -> None:
    for module in (pairs, products):
        monkeypatch.setattr(module, "cpu_multiplies_bfloat16", lambda: has_bfloat16)
    # A product of that size takes seconds without the instructions.
    monkeypatch.setattr(pairs, "RATE_MATRIX", 64)
    sizes = ("batch_size=3", "big_batch=4", "regions=9", "words=5", "dim=8")
    report = start("pairs", f"method={method}", *sizes, "repeats=1", "threads=1")
    forms = [form for form in FORMS[method] if has_bfloat16 or form.precision == "float32"]
    assert [row["form"] for row in report["rows"]] == [form.title for form in forms]
    assert all(row["seconds"] > 0 for row in report["rows"])
    names = target_names(report)
    asked = [form for form in forms if FORMS[method][form] is not None]
    for what in ("time to loop", "memory to loop", "GiB at batch 4"):
        assert sum(name.endswith(what) for name in names) == len(asked)
    in_bfloat16 = [form for form in FORMS[method] if form.precision == "bfloat16"]
    errors = [each["value"] for each in report["targets"] if "gradient off" in each["name"]]
    # Rounded, and so neither equal nor far off.
    assert len(errors) == len(in_bfloat16)
    assert all(0 < error < 0.1 for error in errors)
    assert ("only the roundings are measured" in report["printed"]) != has_bfloat16


def test_checkpoint(start: Start) -> None:
    report = start("checkpoint", *SIZES, "rounds=1", "usual_steps=1")
    for name in ("usual_step_seconds", "snapshot_seconds", "background_ratio", "at_once_ratio"):
        assert report[name] > 0
        assert name in report["printed"]
    assert "at most 1.2: " in report["printed"]
    assert target_names(report) == ["steps with a save under way / usual"]


@pytest.mark.slow
def test_scaling_predicts_and_measures_every_number_of_ranks(start: Start) -> None:
    report = start("scaling", *SIZES, "ranks=[1,2]", "steps=1", "rounds=1")
    assert [row["ranks"] for row in report["rows"]] == [1, 2]
    assert all(row["predicted s"] > 0 and row["measured s"] > 0 for row in report["rows"])
    assert report["links"].keys() == {"all_reduce", "all_gather", "reduce_scatter"}


def finite_figures(report: dict[str, Any]) -> set[str]:
    """The parts, each of which must have ended with figures."""
    for name, part in report["parts"].items():
        assert part["error"] is None, f"{name}: {part['error']}"
        assert all(map(math.isfinite, part["figures"].values())), name
        assert part["figures"], name
    return set(report["parts"])


@on_linux
def test_gpu_measures_the_papers_profile_and_traces_it(start: Start, tmp_path: Path) -> None:
    """Every part: with the slow tests."""
    some = "only=[lovt_a100,trace]"
    report = start("gpu", "device=cpu", "tiny=true", "minutes=60", some, f"output={tmp_path}")
    assert finite_figures(report) == {"lovt_a100", "trace"}
    assert "lovt_a100" in (tmp_path / "gpu.md").read_text()


@pytest.mark.slow
@on_linux
def test_gpu_has_figures_of_every_part_on_a_cpu_and_judges_none(
    start: Start, tmp_path: Path
) -> None:
    report = start("gpu", "device=cpu", "tiny=true", "minutes=60", f"output={tmp_path}")
    assert finite_figures(report) == PARTS.keys()
    for name, every in ASKED.items():
        part = report["parts"]["lovt_a100" if name == PROFILES else name]
        assert {each.figure for each in every} <= part["figures"].keys()
    lovt = report["parts"]["lovt_a100"]["figures"]
    rates = [lovt[name] for name in lovt if name.endswith("pairs_per_second")]
    assert len(rates) == 4
    assert min(rates) > 0
    assert report["targets"] == []
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["parts"] == report["parts"]
    page = (tmp_path / "gpu.md").read_text()
    assert "not yet run" not in page
    assert "nothing is judged" in page
    assert {each.name for each in tmp_path.glob("trace_*.json.gz")} == {
        "trace_bare.json.gz",
        "trace_trainer.json.gz",
    }


def test_an_unknown_setting_is_refused_by_every_one_and_the_nearest_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    mistyped = {
        "shards": "image",
        "opening": "shard",
        "loader": "image",
        "step": "step",
        "loss": "chunks",
        "pairs": "region",
        "regions": "image",
        "checkpoint": "round",
        "scaling": "rank",
        "downstream": "epoch",
        "gpu": "minute",
    }
    nearest = {"loss": "chunk_size"}
    assert mistyped.keys() == set(BENCHMARKS)
    for verb, name in mistyped.items():
        required = ["method=limitr"] if verb == "pairs" else []
        assert main(["benchmark", verb, *required, f"{name}=3"]) == 2
        said = capsys.readouterr().err
        assert f"benchmark {verb}: unknown key" in said
        assert f"did you mean {nearest.get(verb, name + 's')!r}" in said


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["benchmark", "pairs", "--method", "gloria"])
    assert "unrecognized arguments" in capsys.readouterr().err
