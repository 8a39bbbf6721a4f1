"""How much of a device's memory a run takes, told and judged before its first step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from data_shards.errors import InputError
from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.training.engine.device import LOWERED
from distributed_pretrain.training.memory.walk import walk
from distributed_pretrain.training.settings import DeepSpeedConfig, RunConfig, TrainingConfig

GIB = 2**30
# The context of CUDA and the workspaces of cuBLAS and cuDNN, which torch does not count: assumed.
CUDA_BYTES = round(0.7 * GIB)

# DeepSpeed's stages from which on the ranks share what.
_SHARED_FROM = {"moments": 1, "gradients": 2, "weights": 3}


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device, with micro-batches of `rows` samples and `tokens` tokens a report.

    Exact: `weights` with buffers, `gradients`, `moments` of the optimizer, `batch` (all of this
    rank's samples). Walked (see `walk`): `kept` for backward, `working`, `compared` and `cached` of
    exact accumulation, `validation`. `by_term` are the gradients of each loss term where they are
    measured. `outside` is what torch does not count, and assumed.
    """

    rows: int
    tokens: int
    weights: int
    gradients: int
    moments: int
    batch: int
    kept: int
    working: int
    compared: int
    cached: int
    by_term: int
    validation: int
    outside: int

    def parts(self) -> dict[str, int]:
        """What is in use at the worst moment, in words: in a step, comparing, or validating."""
        inputs = {"a batch": self.batch}
        step = inputs | {
            "gradients": self.gradients,
            f"activations of {self.rows} x {self.tokens} tokens": self.kept,
            "beside them": self.working + self.cached,
            "gradients by term": self.by_term,
        }
        comparing = inputs | {"losses of all micro-batches": self.compared}
        validating = {"a batch of validation": self.validation}
        worst = max((step, comparing, validating), key=lambda each: sum(each.values()))
        every = {"weights": self.weights, "optimizer": self.moments, **worst}
        every["CUDA itself (assumed)"] = self.outside
        return {name: each for name, each in every.items() if each}

    @property
    def total(self) -> int:
        """The most that a run takes."""
        return sum(self.parts().values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {each / GIB:.2f}" for name, each in self.parts().items())
        return f"about {self.total / GIB:.2f} GiB ({parts})"


def estimate_memory(
    objective: Objective,
    probe: Callable[..., Batch],
    config: RunConfig,
    *,
    device: torch.device,
    ranks: int,
    tokens: int,
) -> MemoryEstimate:
    """The memory of each of `ranks` devices, with no report longer than `tokens`.

    The device need not be there. `probe(device, rows=, tokens=)` makes a batch. A backward is not
    walked: its own gradients are bounded by the largest tensors of forward.
    """
    training = config.training
    of_rank = config.data.global_batch // ranks
    groups = training.groups(config.data.global_batch)
    # The first micro-batch is none of the smaller ones.
    rows = of_rank // sum(groups) * groups[0]
    walked = walk(
        objective,
        probe,
        device,
        rows=rows,
        of_rank=of_rank,
        tokens=tokens,
        compares_all=training.accumulation == "exact" and objective.contrasts_samples,
        groups=groups[0],
        dtype=LOWERED.get(training.precision),
        fused_attention=not training.deterministic,
    )
    trained = _bytes(each for each in objective.parameters() if each.requires_grad)
    return MemoryEstimate(
        rows=rows,
        tokens=tokens,
        weights=_of_one(
            _bytes((*objective.parameters(), *objective.buffers())), "weights", training, ranks
        ),
        gradients=_of_one(trained, "gradients", training, ranks),
        moments=_of_one(2 * trained, "moments", training, ranks),
        batch=walked.inputs,
        kept=walked.kept,
        working=walked.working,
        compared=walked.compared,
        cached=walked.cached,
        by_term=_by_term(trained, len(objective.term_weights), training),
        validation=walked.evaluating + walked.inputs,
        outside=CUDA_BYTES if device.type == "cuda" else 0,
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


def _of_one(size: int, what: str, training: TrainingConfig, ranks: int) -> int:
    """What one rank holds of `size` bytes."""
    distributed = training.distributed
    cut = isinstance(distributed, DeepSpeedConfig) and distributed.zero_stage >= _SHARED_FROM[what]
    return -(-size // ranks) if cut else size


def _by_term(trained: int, terms: int, training: TrainingConfig) -> int:
    """A sum of each term, and beside it what is added: the gradients, once more in one piece."""
    if training.gradient_norms_every_steps is None:
        return 0
    beside = 3 if training.accumulation_steps > 1 else 1
    return (terms + beside) * trained


def device_bytes(training: TrainingConfig, device: torch.device) -> int | None:
    """What this process can have of the device: as configured, or what others leave of a GPU."""
    if training.device_memory_gib is not None:
        return round(training.device_memory_gib * GIB)
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device)


def refuse_what_does_not_fit(
    estimate: MemoryEstimate,
    config: RunConfig,
    capacity: int,
    estimate_of: Callable[[TrainingConfig], MemoryEstimate],
) -> None:
    """Raise InputError with the estimate and a switch that helps, unless it fits.

    Whether one does is told by `estimate_of` the settings with it.
    """
    if estimate.total <= capacity:
        return
    raise InputError(
        f"a device needs {estimate} and has {capacity / GIB:.2f} GiB: "
        f"{_switch(estimate, config, capacity, estimate_of)}; a larger training.device_memory_gib "
        "tries it all the same"
    )


def _switch(
    estimate: MemoryEstimate,
    config: RunConfig,
    capacity: int,
    estimate_of: Callable[[TrainingConfig], MemoryEstimate],
) -> str:
    """The first setting with which the estimate fits."""
    for changes, roughly in _changes(estimate, config):
        if roughly.total > capacity:
            continue
        found = estimate_of(config.training.model_copy(update=changes))
        if found.total > capacity:
            continue
        values = {name: "null" if value is None else value for name, value in changes.items()}
        told = " ".join(f"training.{name}={value}" for name, value in values.items())
        another = ""
        if "accumulation" in changes:
            another = ": another recipe, that compares every sample of the batch"
        return f"set {told} ({found.total / GIB:.2f} GiB{another})"
    return (
        "take a smaller data.global_batch, data.max_tokens or data.image_size_px, or more ranks "
        "with training.distributed={name: deepspeed, zero_stage: 2}"
    )


def _changes(
    estimate: MemoryEstimate, config: RunConfig
) -> Iterator[tuple[dict[str, Any], MemoryEstimate]]:
    """What may be changed, in the order of what it costs, and roughly what is needed then."""
    training = config.training
    ways: list[tuple[dict[str, Any], MemoryEstimate]] = [({}, estimate)]
    if estimate.by_term:
        ways.append(({"gradient_norms_every_steps": None}, replace(estimate, by_term=0)))
    yield from ways[1:]
    if training.precision == "float32":
        for changes, each in ways:
            halved = replace(each, kept=each.kept // 2, working=each.working // 2)
            yield {"precision": "bf16"} | changes, halved
    for steps, rows, keeps in _more_steps(estimate, config):
        more: dict[str, Any] = {"accumulation_steps": steps}
        if not keeps:
            more["accumulation"] = "exact"
            if training.negatives_from is not None:
                more["negatives_from"] = None
        for changes, each in ways:
            yield more | changes, _of_rows(each, rows)


def _more_steps(estimate: MemoryEstimate, config: RunConfig) -> Iterator[tuple[int, int, bool]]:
    """More micro-batches than now, the rows of the largest, if all that are compared stay together.

    Those that keep the recipe come first.
    """
    training = config.training
    now, groups = training.accumulation_steps, training.groups(config.data.global_batch)
    of_group, number = estimate.rows // groups[0], sum(groups)
    if training.negatives_from is not None:
        for steps in range(now + 1, number + 1):
            yield steps, of_group * -(-number // steps), True
    of_rank = of_group * number
    for steps in range(now + 1, of_rank + 1):
        if of_rank % steps == 0:
            yield steps, of_rank // steps, training.accumulation == "exact"


def _of_rows(estimate: MemoryEstimate, rows: int) -> MemoryEstimate:
    """Roughly, of micro-batches with so many samples."""
    kept, working = (each * rows // estimate.rows for each in (estimate.kept, estimate.working))
    return replace(estimate, kept=kept, working=working)
