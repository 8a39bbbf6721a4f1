"""What a rank computes for the proof of equal gradients: runs in processes of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from distributed_pretrain import ranks as collectives
from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.lovt.method import Lovt
from distributed_pretrain.training.engine.ddp import Engine, build_optimizer
from distributed_pretrain.training.gradients import accumulate_gradients
from distributed_pretrain.training.settings import OptimizerConfig, TrainingConfig
from tests.tiny.batches import pairs_of_sentences
from tests.tiny.methods import tiny_lovt
from tests.tiny.sizes import IMAGE_ENCODER

GLOBAL_BATCH = 12
SENTENCES = (3, 1, 2, 3, 1, 2, 1, 1, 3, 3, 2, 1)
STEPS = 10
# Adam makes whole steps of gradients that are nothing but rounding, unless epsilon is larger; and
# ten times larger steps cross so many kinks (ReLUs, maxima) that one process in float32 is 2e-3
# away from float64.
LEARNING_RATE = 1e-4
EPSILON = 1e-3
Mutation = Literal["detached", "averaged", "scaled"]


@dataclass(frozen=True)
class Case:
    """One way to compute what one process computes with the whole batch."""

    name: str
    method: dict[str, Any]
    distributed: dict[str, Any]
    micro_batches: int = 1
    mutation: Mutation | None = None
    float64: bool = True
    chunk_size: int | None = None


GROUP_NORMS: dict[str, Any] = {
    "image_encoder": IMAGE_ENCODER | {"last_stride": 1, "norm": "group"},
    "projection_norm": "group",
}
SYNC_NORMS: dict[str, Any] = {
    "image_encoder": GROUP_NORMS["image_encoder"] | {"norm": "sync"},
    "projection_norm": "sync",
}
DDP = {"name": "ddp"}


def run_cases(cases: list[Case], folder: Path) -> None:
    """Save {case: {"losses", "gradients", "parameters"}} of rank 0 to `folder/results.pt`."""
    results = {case.name: run_case(case) for case in cases}
    if collectives.world_size() == 1 or torch.distributed.get_rank() == 0:
        torch.save(results, folder / "results.pt")
    collectives.wait_for_all()


def run_case(case: Case) -> dict[str, Any]:
    """Losses of each step, gradients of the first, parameters after ten."""
    mutate_gather(case.mutation)
    training = TrainingConfig.model_validate(
        {"distributed": case.distributed, "accumulation_steps": case.micro_batches}
    )
    engine = make_engine(training)
    changes = case.method | {"chunk_size": case.chunk_size}
    method = tiny_lovt(learnable_temperatures=True, **changes)
    if case.float64:
        method.double()
    method.train()
    optimizer = build_optimizer(
        OptimizerConfig(learning_rate=LEARNING_RATE, epsilon=EPSILON), method
    )
    engine.prepare(method, optimizer)
    losses, gradients = [], {}
    for step in range(STEPS):
        share = GLOBAL_BATCH // engine.world_size
        rows = slice(engine.rank * share, (engine.rank + 1) * share)
        batch = global_batch(step, float64=case.float64).rows(rows)
        result = accumulate_gradients(
            engine,
            batch.split([1] * case.micro_batches),
            exact=True,
            seed=step,
            measure_norms=step == 0,
        )
        norm = engine.gradient_norm()
        if step == 0:
            gradients = full_gradients(method)
            norms = {name: float(value) for name, value in result.norms.items()}
        terms = torch.stack(list(result.terms.values()))
        losses.append(collectives.mean_over_ranks(terms).tolist())
        engine.update(LEARNING_RATE, clip_norm=None, norm=norm)
    parameters = {n: t.detach().clone().double() for n, t in engine.model_state().items()}
    return {"losses": losses, "gradients": gradients, "norms": norms, "parameters": parameters}


def make_engine(training: TrainingConfig) -> Engine:
    if training.distributed.name == "ddp":
        return Engine(training)
    from accelerate.state import AcceleratorState

    from distributed_pretrain.training.engine.deepspeed import DeepSpeedEngine
    from tests.distributed import deepspeed_on_cpu

    deepspeed_on_cpu.allow_cpu_ranks()
    AcceleratorState._reset_state(reset_partial_state=True)
    return DeepSpeedEngine(training)


def full_gradients(method: Lovt) -> dict[str, Tensor]:
    """By parameter, in float64, whatever holds them."""
    named = {n: p for n, p in method.named_parameters() if p.requires_grad}
    if all(p.grad is not None for p in named.values()):
        return {n: p.grad.double() for n, p in named.items() if p.grad is not None}
    from deepspeed.utils import safe_get_full_grad

    return {n: safe_get_full_grad(p).double() for n, p in named.items()}


def global_batch(step: int, *, float64: bool) -> Batch:
    """Twelve pairs with one to three sentences; other images each step."""
    batch = pairs_of_sentences(*SENTENCES)
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(GLOBAL_BATCH, 1, 64, 64, generator=generator, dtype=torch.float64)
    return replace(batch, images=images if float64 else images.float())


def mutate_gather(mutation: Mutation | None) -> None:
    """Break the gather's backward in the ways its authors could have got it wrong."""

    def backward(context: Any, gradient: Tensor) -> Tensor:
        own = true_backward(context, gradient)
        if mutation == "detached":
            return torch.zeros_like(own)
        ranks = collectives.world_size()
        return own / ranks if mutation == "averaged" else own * ranks

    collectives._GatherRows.backward = true_backward if mutation is None else staticmethod(backward)  # type: ignore[method-assign]


true_backward = collectives._GatherRows.backward
