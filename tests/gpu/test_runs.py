"""Runs on a device: going on, steps that are left out, memory, and validation in bf16."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from data_shards.files.json_lines import JsonLines
from distributed_pretrain.__main__ import main
from distributed_pretrain.batch import Batch
from distributed_pretrain.run_folder.checkpoint_writer import CheckpointSnapshot
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.intact import TrainingState
from distributed_pretrain.training.engine.ddp import Engine, build_optimizer
from distributed_pretrain.training.engine.layout import MOMENTS
from distributed_pretrain.training.settings import OptimizerConfig, TrainingConfig
from distributed_pretrain.training.step import Stepper
from tests.distributed_pretrain.run_folder.checkpoints import checkpoint
from tests.gpu.devices import on_each_device, only_on_a_gpu, slow_on_a_cpu
from tests.tiny import methods
from tests.tiny import short_run as short
from tests.tiny.batches import pairs_of_sentences, random_batch
from tests.tiny.methods import tiny_lovt

# One worker: runs are trained in this process.
pytestmark = pytest.mark.xdist_group("gpu")

BF16 = "training.precision=bf16"
MEBIBYTE = 2**20


@slow_on_a_cpu
def test_a_run_that_goes_on_is_the_same_to_the_last_bit_where_it_is_deterministic(
    device: torch.device, tiny_profile: Path, tmp_path: Path
) -> None:
    words = ("training.deterministic=true",)
    whole, begun = tmp_path / "whole", tmp_path / "begun"
    assert short.train(tiny_profile, whole, *words) == 0
    short.cut_back(whole, begun)
    assert short.train(tiny_profile, begun, *words) == 0
    assert short.same_weights(whole, begun)


@only_on_a_gpu
def test_a_run_that_goes_on_reads_the_same_and_has_close_losses(
    device: torch.device, tiny_profile: Path, tmp_path: Path
) -> None:
    whole, begun = tmp_path / "whole", tmp_path / "begun"
    assert short.train(tiny_profile, whole) == 0
    short.cut_back(whole, begun)
    assert short.train(tiny_profile, begun) == 0
    last, again = (RunFolder(each).read_metrics() for each in (whole, begun))
    for line, other in zip(last, again, strict=True):
        assert (line["step"], line["split"]) == (other["step"], other["split"])
        assert line["total"] == pytest.approx(other["total"], rel=1e-3)


@on_each_device
def test_moments_are_laid_out_as_their_parameters_after_a_load(device: torch.device) -> None:
    """Fused updates walk both together."""
    method = tiny_lovt().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    engine = Engine(TrainingConfig())
    engine.prepare(method.train(), build_optimizer(OptimizerConfig(), method))
    batch = pairs_of_sentences(1, 2, 3, 1).to(device)

    def update() -> None:
        engine.backward(method.loss(engine.forward(batch))["total"])
        engine.update(1e-4, clip_norm=None, norm=engine.gradient_norm())

    update()
    # As a file has them: on the host, rows after one another.
    state = engine.optimizer_state()
    for moments in state["state"].values():
        for name in MOMENTS:
            moments[name] = moments[name].cpu().contiguous()
    engine.load_state(engine.model_state(), state)
    for parameter, moments in engine.optimizer.state.items():
        for name in MOMENTS:
            assert moments[name].stride() == parameter.stride()
            assert moments[name].device.type == device.type
    update()
    last_map = method.image_encoder(batch.images)
    assert last_map.is_contiguous(memory_format=torch.channels_last)


@on_each_device
def test_a_nan_leaves_weights_moments_and_statistics_as_they_are(
    device: torch.device, tmp_path: Path
) -> None:
    config = methods.tiny_profile("phantom_lovt")
    method = methods.tiny_method(config).to(device).train()
    engine = Engine(config.training)
    engine.prepare(method, build_optimizer(config.optimizer, method))
    stepper = Stepper(config, engine, JsonLines(tmp_path / "skipped.jsonl"), 10, 10)
    state = TrainingState()

    def step(batch: Batch) -> None:
        launched = stepper.step(state, batch, data_wait_seconds=0.0, interrupted=lambda: False)
        stepper.read(state, launched)

    def everything() -> list[Tensor]:
        moments = [m[name] for m in engine.optimizer.state.values() for name in MOMENTS]
        return [each.detach().clone() for each in (*method.state_dict().values(), *moments)]

    good = random_batch(config, 6).to(device)
    spoilt = good.images.clone()
    spoilt[1] = torch.nan
    bad = replace(good, images=spoilt)
    step(good)
    before = everything()
    step(bad)
    assert state.skipped_steps == 1
    assert all(map(torch.equal, everything(), before))
    step(good)
    assert state.consecutive_skips == 0
    assert not all(map(torch.equal, everything(), before))


def bytes_in_use(device: torch.device) -> Callable[[], int]:
    """Of a GPU's tensors; on a CPU of all tensors that Python knows."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated

    def of_tensors() -> int:
        gc.collect()
        # Some libraries answer `isinstance` with an import; fake tensors of a graph have no bytes.
        kinds = (Tensor, nn.Parameter)
        every = (each for each in gc.get_objects() if type(each) in kinds)
        return sum(each.nbytes for each in every)

    return of_tensors


@on_each_device
def test_memory_does_not_grow_over_steps_of_changing_shapes(device: torch.device) -> None:
    method = tiny_lovt().to(device).train()
    engine = Engine(TrainingConfig())
    engine.prepare(method, build_optimizer(OptimizerConfig(), method))
    in_use = bytes_in_use(device)
    steps = 200 if device.type == "cuda" else 12

    def step(number: int) -> None:
        sentences = [1 + (number + row) % 5 for row in range(2 + number % 3)]
        batch = pairs_of_sentences(*sentences).to(device)
        engine.backward(method.loss(engine.forward(batch))["total"])
        engine.update(1e-4, clip_norm=None, norm=engine.gradient_norm())

    for number in range(steps // 4):
        step(number)
    before = in_use()
    reserved = torch.cuda.memory_reserved() if device.type == "cuda" else 0
    for number in range(steps):
        step(number)
    assert in_use() <= before + MEBIBYTE
    if device.type == "cuda":
        assert torch.cuda.memory_reserved() <= 1.2 * reserved


@on_each_device
def test_recalls_of_a_validation_in_bf16_are_those_of_an_evaluation(
    device: torch.device, tiny_profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert short.train(tiny_profile, folder, BF16) == 0
    lines = RunFolder(folder).read_metrics()
    validated = [line for line in lines if line["split"] == "validate"][-1]
    capsys.readouterr()
    words = ("split=validate", "checkpoint=last", "labelled_studies=8")
    assert main(["evaluate", str(folder), *words]) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    evaluated = {name: float(value) for name, value in printed}
    recalls = [name for name in evaluated if "recall_at" in name and name in validated]
    assert recalls
    for name in recalls:  # of 20 studies, two of which may change places
        assert evaluated[name] == pytest.approx(validated[name], abs=0.1)


@only_on_a_gpu
def test_a_snapshot_is_whole_and_page_locked(device: torch.device) -> None:
    source = checkpoint(5, numbers=10_000_000)
    on_gpu = {name: tensor.to(device) for name, tensor in source.model.items()}
    snapshot = CheckpointSnapshot()
    for step in (5.0, 6.0):
        for tensor in on_gpu.values():
            tensor.fill_(step)
        saved = snapshot.take(replace(source, model=on_gpu))
        assert all(tensor.is_pinned() for tensor in saved.model.values())
        assert all(bool((tensor == step).all()) for tensor in saved.model.values())


@only_on_a_gpu
def test_the_estimate_of_memory_is_what_is_allocated(
    device: torch.device, tiny_profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    folder = tmp_path / "run"
    sizes = ("data.image_size_px=224", "data.global_batch=32", "data.max_tokens=64")
    assert short.train(tiny_profile, folder, *sizes, "training.max_steps=2") == 0
    told = capsys.readouterr().err.partition("memory of a device: about ")[2]
    estimated = float(told.partition(" GiB")[0])
    allocated = (torch.cuda.max_memory_allocated() - before) / 2**30
    outside = 0.7
    assert 0.8 * allocated < estimated - outside < 1.6 * allocated + 0.05
