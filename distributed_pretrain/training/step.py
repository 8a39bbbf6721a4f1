"""One optimizer step on all ranks together: gradients, the finite check, update or skip."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_shards.files.json_lines import JsonLines, rank_writer
from distributed_pretrain.batch import Batch
from distributed_pretrain.ranks import gather_rows
from distributed_pretrain.run_folder.intact import TrainingState
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.gradients import accumulate_gradients, restore_buffers
from distributed_pretrain.training.schedules import learning_rate_factor
from distributed_pretrain.training.settings import RunConfig


@dataclass(frozen=True)
class Stepper:
    """Makes steps for a run of `total_steps`; `state` is advanced by each.

    Batches without an update are named in `skipped`.
    """

    config: RunConfig
    engine: Engine
    skipped: JsonLines
    steps_per_epoch: int
    total_steps: int

    def step(
        self,
        state: TrainingState,
        batch: Batch,
        *,
        data_wait_seconds: float,
        interrupted: Callable[[], bool],
    ) -> tuple[dict[str, float], bool]:
        """(numbers of a step, whether any rank is to stop: `interrupted` is asked at its end).

        A loss term or gradient that is not finite on any rank leaves weights and running statistics
        of all as they are; the samples are named in the run folder. The numbers are the same on
        every rank, and finite: what was not is left out.
        """
        training, global_batch = self.config.training, self.config.data.global_batch
        learning_rate = self.config.optimizer.learning_rate * learning_rate_factor(
            self.config.schedule,
            state.step,
            steps_per_epoch=self.steps_per_epoch,
            total_steps=self.total_steps,
            reductions=state.learning_rate_reductions,
        )
        objective = self.engine.objective
        objective.start_step(epoch=batch.epoch)
        every = training.gradient_norms_every_steps
        statistics = [buffer.clone() for buffer in objective.buffers()]
        micro_batches = batch.split(training.accumulation_steps)
        gradients = accumulate_gradients(
            self.engine,
            micro_batches,
            exact=training.accumulation == "exact",
            # Dropout is a function of (seed, step, rank): a resumed run draws the same.
            seed=_seed_of(self.config.seed, state.step, self.engine.rank),
            measure_norms=every is not None and (state.step + 1) % every == 0,
        )
        norm = self.engine.gradient_norm()
        own: dict[str, Tensor | float] = {
            **gradients.terms,
            "gradient_norm": norm,
            **{f"gradient_norm_{name}": value for name, value in gradients.norms.items()},
            "replaced_samples": batch.replaced,
            "interrupted": interrupted(),
            "data_wait_seconds": data_wait_seconds,
            "memory_bytes": peak_memory_bytes(self.engine.device),
            "tokens": float(sum(batch.report.lengths)),
            "padded_tokens": float(sum(part.report.token_ids.numel() for part in micro_batches)),
        }
        device, dtype = self.engine.device, torch.float64
        numbers = [torch.as_tensor(each, dtype=dtype, device=device) for each in own.values()]
        # Of all ranks, (numbers, ranks), on the host.
        gathered = gather_rows(torch.stack(numbers)[None]).cpu().T
        by_rank = dict(zip(own, gathered, strict=True))
        replaced, any_interrupted = by_rank.pop("replaced_samples"), by_rank.pop("interrupted")
        waits, memory = by_rank.pop("data_wait_seconds"), by_rank.pop("memory_bytes")
        tokens, padded = (float(by_rank.pop(name).sum()) for name in ("tokens", "padded_tokens"))
        means = {name: float(values.mean()) for name, values in by_rank.items()}
        if not all(map(math.isfinite, means.values())):
            self._name_samples(state.step + 1, batch, torch.cat(gradients.finite_rows), by_rank)
            self.engine.drop_gradients()
            # One NaN in a running mean would stay in it for ever.
            restore_buffers(objective, statistics)
            state.skipped_steps += 1
            state.consecutive_skips += 1
        else:
            self.engine.update(learning_rate, clip_norm=training.clip_gradient_norm, norm=norm)
            objective.after_update(progress=state.step / self.total_steps)
            state.consecutive_skips = 0
        state.step += 1
        state.samples_consumed += global_batch
        values = {name: mean for name, mean in means.items() if math.isfinite(mean)} | {
            "learning_rate": learning_rate,
            "epoch": state.samples_consumed / (self.steps_per_epoch * global_batch),
            "replaced_samples": float(replaced.sum()),
            "skipped_steps": state.skipped_steps,
            "slowest_data_wait_seconds": float(waits.max()),
            "memory_bytes": float(memory.max()),
        }
        if tokens:
            values |= {"tokens": tokens, "padding_share": 1 - tokens / padded}
        return values, bool(any_interrupted.any())

    def _name_samples(
        self, step: int, batch: Batch, finite: Tensor, by_rank: dict[str, Tensor]
    ) -> None:
        """Write down the samples whose own outputs were not finite on this rank.

        All of its share, where no rank can tell: a shared norm spreads them, or only the gradient
        overflowed.
        """
        counts = gather_rows((~finite).sum()[None])
        suspects = ~finite if counts.any() else torch.ones_like(finite)
        keys = [key for key, is_one in zip(batch.keys, suspects.tolist(), strict=True) if is_one]
        rank = self.engine.rank
        if keys:
            line = {
                "step": step,
                "rank": rank,
                "samples_consumed": batch.samples_consumed,
                "not_finite": [name for name, of in by_rank.items() if not of[rank].isfinite()],
                "keys": keys,
            }
            self.skipped.append(line, writer=rank_writer(rank))


def _seed_of(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(2))


def peak_memory_bytes(device: torch.device) -> float:
    """The most memory in use so far: of the device's tensors, or of this process on a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
