"""The estimate of a run's memory beside what torch really allocates, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from data_shards.errors import InputError
from distributed_pretrain.__main__ import main
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.pretrain.build import memory_of
from distributed_pretrain.pretrain.full_batch import full_batch
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.training.engine.ddp import Engine, build_optimizer
from distributed_pretrain.training.gradients import accumulate_gradients
from distributed_pretrain.training.memory.estimate import (
    GIB,
    MemoryEstimate,
    refuse_what_does_not_fit,
)
from distributed_pretrain.training.settings import DeepSpeedConfig, OptimizerConfig, TrainingConfig
from tests.processor import bound
from tests.tiny import methods
from tests.tiny.methods import tiny_method
from tests.tiny.short_run import the_error

# Rather above: the gradients of a backward are bounded and not walked.
LEAST, MOST = 0.95, 1.2
TOKENS = 30
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def case(name: str, *, rows: int = 16, pieces: int = 1, **training: Any) -> PretrainConfig:
    """A tiny profile with larger images: activations count more than weights."""
    values = methods.tiny_profile(name).model_dump()
    values["data"] |= {"global_batch": rows, "image_size_px": 96, "max_tokens": TOKENS}
    values["training"] |= {
        "accumulation_steps": pieces,
        "accumulation": "exact",
        "gradient_norms_every_steps": None,
        **training,
    }
    return PretrainConfig.model_validate(values)


def estimate_of(config: PretrainConfig, device: torch.device = CPU) -> MemoryEstimate:
    return memory_of(tiny_method(config), config, device=device, ranks=1)


def allocated_by(config: PretrainConfig) -> int:
    """The most bytes in use at a time in a second step, when the optimizer has its moments."""
    method = tiny_method(config).train()
    engine = Engine(config.training)
    engine.prepare(method, build_optimizer(OptimizerConfig(), method))
    data, training = config.data, config.training
    measured = training.gradient_norms_every_steps is not None
    batch = full_batch(
        CPU,
        rows=data.global_batch,
        image_size_px=data.image_size_px,
        tokens=data.max_tokens,
        views=data.views,
        classes=len(data.labels),
    )

    def step() -> None:
        pieces = batch.split([1] * training.accumulation_steps)
        exact = training.accumulation == "exact"
        accumulate_gradients(engine, pieces, exact=exact, seed=0, measure_norms=measured)
        engine.update(1e-5, clip_norm=None, norm=engine.gradient_norm())

    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    now = peak = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak + before_a_step(method, batch)


def before_a_step(method: Method, batch: Any) -> int:
    """Weights, buffers, moments and the batch."""
    sizes = [each.nbytes for each in (*method.parameters(), *method.buffers())]
    sizes += [2 * each.nbytes for each in method.parameters() if each.requires_grad]

    def add(tensor: Tensor) -> Tensor:
        sizes.append(tensor.nbytes)
        return tensor

    batch.map_tensors(add)
    return sum(sizes)


@pytest.mark.parametrize(
    "config",
    [
        case("phantom_lovt", rows=8, pieces=2, gradient_norms_every_steps=1, precision="bf16"),
        case("phantom_limitr", rows=6),
        pytest.param(case("phantom_lovt"), marks=pytest.mark.slow),
        pytest.param(case("phantom_gloria", rows=8, pieces=2), marks=pytest.mark.slow),
        pytest.param(case("phantom_byol", rows=8), marks=pytest.mark.slow),
    ],
    ids=["lovt in parts, norms by term, bf16", "limitr", "lovt", "gloria in parts", "byol"],
)
def test_the_estimate_is_what_is_allocated_or_little_more(config: PretrainConfig) -> None:
    ratio = estimate_of(config).total / allocated_by(config)
    # In bf16 a CPU with AVX2 alone unfolds images for its convolutions: 0.90.
    least = bound(LEAST, elsewhere=0.85) if config.training.precision == "bf16" else LEAST
    assert least < ratio < MOST


def test_a_gpu_that_is_not_there_is_estimated_and_lowers_the_numbers_bits() -> None:
    config = case("phantom_gloria", rows=4)
    whole, lowered = (
        estimate_of(config.model_copy(update={"training": training}), GPU)
        for training in (config.training, case("phantom_gloria", precision="bf16").training)
    )
    assert 0.45 * whole.kept < lowered.kept < 0.9 * whole.kept
    assert whole.weights == lowered.weights == estimate_of(config).weights
    assert whole.parts()["CUDA itself (assumed)"] > 2**29


def test_the_walk_changes_nothing() -> None:
    config = case("phantom_lovt", rows=4)
    method = tiny_method(config).train()
    before = {name: each.clone() for name, each in method.state_dict().items()}
    memory_of(method, config, device=GPU, ranks=1)
    assert method.training
    assert all(torch.equal(each, before[name]) for name, each in method.state_dict().items())
    assert all(each.is_cpu and each.grad is None for each in method.parameters())


def figures(**changes: int) -> MemoryEstimate:
    sizes = dict.fromkeys((each.name for each in fields(MemoryEstimate)), 0)
    sizes |= {"rows": 32, "tokens": 128, "weights": GIB, "moments": 2 * GIB}
    return MemoryEstimate(**sizes | changes)


def test_the_worst_moment_counts() -> None:
    step = figures(kept=5 * GIB, gradients=GIB)
    assert step.total == 9 * GIB
    assert replace(step, validation=4 * GIB).total == 9 * GIB
    assert replace(step, validation=8 * GIB).parts()["a batch of validation"] == 8 * GIB
    assert replace(step, compared=8 * GIB).parts()["losses of all micro-batches"] == 8 * GIB


def as_settings_have_it(
    estimate: MemoryEstimate, config: PretrainConfig
) -> Callable[[TrainingConfig], MemoryEstimate]:
    """Made-up figures of a profile, as its switches change them."""

    def estimated(training: TrainingConfig) -> MemoryEstimate:
        groups = training.groups(config.data.global_batch)
        kept = estimate.kept * groups[0] // sum(groups) * config.training.accumulation_steps
        if training.precision != config.training.precision:
            kept //= 2
        keeps_terms = training.gradient_norms_every_steps is not None
        return replace(estimate, kept=kept, by_term=estimate.by_term if keeps_terms else 0)

    return estimated


@pytest.mark.parametrize(
    ("estimate", "training", "switch"),
    [
        (figures(kept=3 * GIB, by_term=5 * GIB), {}, "gradient_norms_every_steps=null (6.00 GiB)"),
        (figures(kept=8 * GIB), {}, "training.precision=bf16 (7.00 GiB)"),
        (
            figures(kept=8 * GIB, by_term=2 * GIB),
            {"precision": "bf16"},
            "training.accumulation_steps=2 (9.00 GiB)",
        ),
        (
            figures(kept=40 * GIB),
            {"precision": "bf16", "accumulation": "plain", "accumulation_steps": 2},
            "training.accumulation_steps=16 training.accumulation=exact ",
        ),
        (figures(weights=30 * GIB), {"precision": "bf16"}, "a smaller data.global_batch"),
    ],
)
def test_a_profile_that_does_not_fit_is_told_what_helps(
    estimate: MemoryEstimate, training: dict[str, Any], switch: str
) -> None:
    config = case("phantom_lovt", rows=32, gradient_norms_every_steps=100, **training)
    estimated = as_settings_have_it(estimate, config)
    with pytest.raises(InputError) as raised:
        refuse_what_does_not_fit(estimate, config, 9 * GIB, estimated)
    assert switch in str(raised.value)
    assert str(raised.value).startswith(f"a device needs {estimate} and has 9.00 GiB: ")
    refuse_what_does_not_fit(estimate, config, 50 * GIB, estimated)


def test_what_helps_is_what_the_walk_says_then() -> None:
    """LIMITR's losses over all micro-batches are in memory only once there are several."""
    config = case("phantom_limitr", rows=16, precision="bf16")
    method = tiny_method(config)

    def estimated(training: TrainingConfig) -> MemoryEstimate:
        changed = config.model_copy(update={"training": training})
        return memory_of(method, changed, device=GPU, ranks=1)

    whole = estimated(config.training)
    capacity = whole.total - 2**20
    with pytest.raises(InputError) as raised:
        refuse_what_does_not_fit(whole, config, capacity, estimated)
    (told,) = re.findall(r"set ((?:training\.\w+=\w+ )+)\(", str(raised.value))
    pairs = (word.removeprefix("training.").split("=") for word in told.split())
    values = config.training.model_dump() | {n: None if v == "null" else v for n, v in pairs}
    assert estimated(TrainingConfig.model_validate(values)).total <= capacity


GROUPS: dict[str, Any] = {"precision": "bf16", "accumulation": "plain", "negatives_from": 8}


@pytest.mark.parametrize(
    ("kept", "changes", "note"),
    [
        (16, ["training.accumulation_steps=4"], "7.00 GiB)"),
        (
            40,
            [
                "training.accumulation_steps=8",
                "training.accumulation=exact",
                "training.negatives_from=null",
            ],
            "GiB: another recipe",
        ),
    ],
)
def test_the_switch_of_a_recipe_in_groups_is_one_that_the_profile_takes(
    kept: int, changes: list[str], note: str
) -> None:
    config = case("phantom_lovt", rows=32, **GROUPS)
    estimate = figures(kept=kept * GIB)
    estimated = as_settings_have_it(estimate, config)
    with pytest.raises(InputError) as raised:
        refuse_what_does_not_fit(estimate, config, 8 * GIB, estimated)
    assert f"set {' '.join(changes)} (" in str(raised.value)
    assert note in str(raised.value)
    told = dict(word.removeprefix("training.").split("=") for word in changes)
    values = config.model_dump()
    values["training"] |= {name: None if of == "null" else of for name, of in told.items()}
    PretrainConfig.model_validate(values)


def test_of_pairs_only_those_within_groups_are_counted() -> None:
    apart, grouped, whole = (
        estimate_of(case("phantom_limitr", rows=16, accumulation="plain", pieces=pieces, **more))
        for pieces, more in ((4, {}), (1, {"negatives_from": 4}), (1, {}))
    )
    assert grouped.kept < 0.9 * whole.kept
    assert grouped.kept == pytest.approx(4 * apart.kept, rel=0.1)


def test_stages_of_deepspeed_share_what_they_cut_up() -> None:
    config = case("phantom_clip", rows=4)
    whole = estimate_of(config)
    for stage, shared in ((1, ("moments",)), (3, ("moments", "gradients", "weights"))):
        cut = config.training.model_copy(update={"distributed": DeepSpeedConfig(zero_stage=stage)})
        part = memory_of(
            tiny_method(config),
            config.model_copy(update={"training": cut}),
            device=CPU,
            ranks=2,
        )
        for name in ("moments", "gradients", "weights"):
            halves = 2 if name in shared else 1
            assert getattr(part, name) == -(-getattr(whole, name) // halves)


def test_a_run_is_refused_before_its_first_step_and_leaves_no_folder(
    tiny_profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    words = ["pretrain", str(tiny_profile), f"run_folder={folder}"]
    assert main([*words, "training.device_memory_gib=0.001"]) == 2
    error = the_error(capsys.readouterr().err)
    assert error.startswith("error: a device needs about 0.")
    assert "and has 0.00 GiB: " in error
    assert not folder.exists()


@pytest.mark.parametrize("ranks", ["0", "-2", "two"])
def test_a_number_of_ranks_that_is_none_is_one_line(
    tiny_profile: Path, capsys: pytest.CaptureFixture[str], ranks: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["memory", str(tiny_profile), "--ranks", ranks])
    assert f"--ranks: {ranks!r} is no whole number from 1 on" in capsys.readouterr().err
