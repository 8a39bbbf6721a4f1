"""One optimizer step on all ranks together: gradients, the finite check, update or skip.

Nobody waits in it for the device: its numbers are read when the next step has been launched.
"""

from __future__ import annotations

import math
import resource
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from data_shards.files.json_lines import JsonLines, rank_writer
from distributed_pretrain.batch import Batch
from distributed_pretrain.ranks import gather_rows
from distributed_pretrain.run_folder.intact import TrainingState
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.engine.loss_scale import LEAST
from distributed_pretrain.training.gradients import accumulate_gradients
from distributed_pretrain.training.kept_buffers import BuffersOf, KeptBuffers
from distributed_pretrain.training.late_numbers import LateNumbers, sent
from distributed_pretrain.training.schedules import learning_rate_factor
from distributed_pretrain.training.settings import RunConfig

_BAD_ROWS, _SCALE = "bad_rows", "loss_scale"
_NORM = "gradient_norm"


@dataclass(frozen=True)
class LaunchedStep:
    """A step that the device may still be at: what it was, and its numbers of all ranks to come.

    `step` counts from 1. `finite_rows` says of each of this rank's samples whether its outputs were
    finite. `scale` is that of the losses after it, in fp16.
    """

    step: int
    keys: tuple[str, ...]
    samples_consumed: int
    epoch: float
    learning_rate: float
    names: tuple[str, ...]
    numbers: LateNumbers
    finite_rows: Tensor
    scale: LateNumbers | None


@dataclass(frozen=True)
class StepNumbers:
    """A step's numbers: the same on every rank, and finite, as what was not is left out.

    `interrupted`: whether any rank was asked to stop. `arrived` is the time at which they were seen
    (`time.perf_counter`).
    """

    step: int
    values: dict[str, float]
    interrupted: bool
    arrived: float


@dataclass(frozen=True)
class Stepper:
    """Makes steps for a run of `total_steps`.

    `step` starts one and waits for nothing; `read` waits for its numbers. What was not finite on
    any rank leaves weights and running statistics of all as they are: that is decided on the
    device, and counted in the state when it is read. Batches without an update are named in
    `skipped`.
    """

    config: RunConfig
    engine: Engine
    skipped: JsonLines
    steps_per_epoch: int
    total_steps: int

    @cached_property
    def _buffers(self) -> BuffersOf:
        return BuffersOf(self.engine.objective)

    def step(
        self,
        state: TrainingState,
        batch: Batch,
        *,
        data_wait_seconds: float,
        interrupted: Callable[[], bool],
    ) -> LaunchedStep:
        """Launch one step and advance `state`; whether it is `interrupted` is asked at the end."""
        training, global_batch = self.config.training, self.config.data.global_batch
        learning_rate = self.config.optimizer.learning_rate * learning_rate_factor(
            self.config.schedule,
            state.step,
            steps_per_epoch=self.steps_per_epoch,
            total_steps=self.total_steps,
            reductions=state.learning_rate_reductions,
        )
        objective = self.engine.objective
        learning_rate = objective.learning_rate(state.step, learning_rate)
        objective.start_step(epoch=batch.epoch, step=state.step)
        every = training.gradient_norms_every_steps
        statistics = KeptBuffers(self._buffers.now())
        groups = training.groups(global_batch)
        micro_batches = batch.split(groups, pack=self.engine.packs_reports)
        gradients = accumulate_gradients(
            self.engine,
            micro_batches,
            exact=training.accumulation == "exact",
            # Dropout is a function of (seed, step, rank): a resumed run draws the same.
            seed=_seed_of(self.config.seed, state.step, self.engine.rank),
            measure_norms=every is not None and (state.step + 1) % every == 0,
            groups=groups,
        )
        objective.after_backward()
        norm = self.engine.gradient_norm()
        finite_rows = torch.cat(gradients.finite_rows)
        on_device = {
            **gradients.terms,
            _NORM: norm,
            **{f"{_NORM}_{name}": value for name, value in gradients.norms.items()},
            _BAD_ROWS: (~finite_rows).sum(),
        }
        scale = self.engine.loss_scale
        if scale is not None:
            on_device[_SCALE] = scale.factor
        on_host = {
            "replaced_samples": batch.replaced,
            "interrupted": interrupted(),
            "data_wait_seconds": data_wait_seconds,
            "memory_bytes": peak_memory_bytes(self.engine.device),
            "tokens": sum(batch.report.lengths),
            "computed_tokens": sum(part.report.computed_tokens for part in micro_batches),
        }
        own = torch.cat(
            [
                torch.stack(list(on_device.values())).double(),
                sent(list(map(float, on_host.values())), self.engine.device),
            ]
        )
        gathered = gather_rows(own[None])
        skip = ~gathered.isfinite().all()
        self.engine.update(
            learning_rate, clip_norm=training.clip_gradient_norm, norm=norm, skip=skip
        )
        # One NaN in a running mean would stay in it for ever.
        statistics.put_back(where=skip)
        objective.after_update(progress=state.step / self.total_steps, made=~skip)
        state.step += 1
        state.samples_consumed += global_batch
        return LaunchedStep(
            step=state.step,
            keys=batch.keys,
            samples_consumed=batch.samples_consumed,
            epoch=state.samples_consumed / (self.steps_per_epoch * global_batch),
            learning_rate=learning_rate,
            names=(*on_device, *on_host),
            numbers=LateNumbers(gathered),
            finite_rows=finite_rows,
            scale=None if scale is None else LateNumbers(scale.numbers()),
        )

    def read(self, state: TrainingState, launched: LaunchedStep) -> StepNumbers:
        """The numbers of a launched step; waits for the device. Steps are read in their order."""
        numbers, arrived = launched.numbers.read()
        by_rank = dict(zip(launched.names, numbers.T, strict=True))
        replaced, interrupted = by_rank.pop("replaced_samples"), by_rank.pop("interrupted")
        waits, memory = by_rank.pop("data_wait_seconds"), by_rank.pop("memory_bytes")
        tokens, computed = (
            float(by_rank.pop(name).sum()) for name in ("tokens", "computed_tokens")
        )
        bad_rows = by_rank.pop(_BAD_ROWS)
        means = {name: float(values.mean()) for name, values in by_rank.items()}
        if all(map(math.isfinite, means.values())):
            state.consecutive_skips = 0
        elif not bad_rows.any() and _overflowed(means):
            state.overflowed_steps += 1
        else:
            self._name_samples(launched, by_rank, anywhere=bool(bad_rows.any()))
            state.skipped_steps += 1
            state.consecutive_skips += 1
        values = {name: mean for name, mean in means.items() if math.isfinite(mean)} | {
            "learning_rate": launched.learning_rate,
            "epoch": launched.epoch,
            "replaced_samples": float(replaced.sum()),
            "skipped_steps": state.skipped_steps,
            "slowest_data_wait_seconds": float(waits.max()),
            "memory_bytes": float(memory.max()),
        }
        if launched.scale is not None:
            factor, updates = launched.scale.read()[0].tolist()
            state.loss_scale, state.loss_scale_updates = factor, int(updates)
            values["overflowed_steps"] = state.overflowed_steps
        if tokens:
            values |= {"tokens": tokens, "padding_share": 1 - tokens / computed}
        return StepNumbers(launched.step, values, bool(interrupted.any()), arrived)

    def decides(self, state: TrainingState) -> bool:
        """Whether one more step without an update, the newest, would rewind or end the run.

        It must be read before another one is launched.
        """
        limits = self.config.training.non_finite
        in_a_row, in_all = state.consecutive_skips + 1, state.skipped_steps + 1
        return in_a_row >= limits.rewind_after or in_all >= limits.stop_after

    def _name_samples(
        self, launched: LaunchedStep, by_rank: dict[str, Tensor], *, anywhere: bool
    ) -> None:
        """Write down the samples whose own outputs were not finite on this rank.

        All of its share where no rank can tell (not `anywhere`): a shared norm spreads them, or
        only the gradient overflowed.
        """
        finite = launched.finite_rows.tolist()
        keys = [key for key, is_finite in zip(launched.keys, finite, strict=True) if not is_finite]
        rank = self.engine.rank
        if not anywhere:
            keys = list(launched.keys)
        if keys:
            line = {
                "step": launched.step,
                "rank": rank,
                "samples_consumed": launched.samples_consumed,
                "not_finite": [name for name, of in by_rank.items() if not of[rank].isfinite()],
                "keys": keys,
            }
            self.skipped.append(line, writer=rank_writer(rank))


def _overflowed(means: dict[str, float]) -> bool:
    """Whether nothing but gradients left fp16's range, by a scale that can be smaller."""
    not_finite = [name for name, mean in means.items() if not math.isfinite(mean)]
    return means.get(_SCALE, LEAST) > LEAST and all(n.startswith(_NORM) for n in not_finite)


def _seed_of(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(2))


def peak_memory_bytes(device: torch.device) -> float:
    """The most memory in use so far: of the device's tensors, or of this process on a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
