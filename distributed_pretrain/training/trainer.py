"""The training loop: one global batch a step, validation and checkpoints between steps."""

from __future__ import annotations

import contextlib
import json
import math
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distributed_pretrain.checkpoint import Checkpoint, TrainingState, save_checkpoint
from distributed_pretrain.config import PretrainConfig
from distributed_pretrain.data.augmentation import DeviceTransform
from distributed_pretrain.data.host_batch import HostBatch
from distributed_pretrain.data.loader import TrainingLoader
from distributed_pretrain.methods.base import Method
from distributed_pretrain.telemetry.progress import TrainingProgress
from distributed_pretrain.telemetry.telemetry import Telemetry
from distributed_pretrain.training.engine import Engine, gradient_norm
from distributed_pretrain.training.interruption import InterruptionFlag
from distributed_pretrain.training.run_folder import RunFolder
from distributed_pretrain.training.schedules import learning_rate_share
from distributed_pretrain.training.stopping import judge_validation
from distributed_pretrain.training.validation import Validator


class NonFiniteLossError(RuntimeError):
    """A loss or gradient is NaN or infinite: the message names the step and the samples."""


class Trainer:
    """Trains `method` from `state` on. Everything it needs is built by `pretrain`."""

    def __init__(
        self,
        config: PretrainConfig,
        *,
        engine: Engine,
        run: RunFolder,
        method: Method,
        optimizer: torch.optim.Optimizer,
        loader: TrainingLoader,
        transform: DeviceTransform,
        validator: Validator,
        state: TrainingState,
        telemetry: Telemetry | None,
    ) -> None:
        self.config = config
        self.engine = engine
        self.run = run
        self.method = method
        self.model = engine.prepare(method)
        self.optimizer = optimizer
        self.parameters = [p for p in method.parameters() if p.requires_grad]
        self.loader = loader
        self.transform = transform
        self.validator = validator
        self.state = state
        self.telemetry = telemetry
        epoch_limit = config.training.epochs * loader.steps_per_epoch
        self.total_steps = min(epoch_limit, config.training.max_steps or epoch_limit)
        self.validate_every = config.training.validate_every_steps or loader.steps_per_epoch
        self.save_every = config.training.checkpoint_every_steps or loader.steps_per_epoch

    def fit(self) -> bool:
        """Train to the end; False when a signal ended it early (a checkpoint is saved)."""
        state, training = self.state, self.config.training
        progress = TrainingProgress(
            first_step=state.step,
            total_steps=self.total_steps,
            interval_seconds=training.log_interval_seconds,
            enabled=self.engine.is_main,
        )
        interruption = InterruptionFlag()
        batches = self.loader.batches(state.samples_consumed)
        self.model.train()
        try:
            while not state.finished:
                values, stop_requested = self.step(batches, interrupted=interruption.raised)
                progress.update(
                    state.step, loss=values["total"], pairs_per_second=values["pairs_per_second"]
                )
                is_best = False
                state.finished = state.step >= self.total_steps
                if state.finished or state.step % self.validate_every == 0:
                    is_best, stop = self._validate(progress)
                    state.finished |= stop
                due = state.step % self.save_every == 0
                if due or is_best or state.finished or stop_requested:
                    self._save(is_best)
                if stop_requested and not state.finished:
                    progress.say(f"interrupted at step {state.step}: checkpoint saved")
                    return False
            return True
        finally:
            interruption.restore()
            batches.close()
            progress.close()

    def step(
        self, batches: Iterator[HostBatch], *, interrupted: bool = False
    ) -> tuple[dict[str, float], bool]:
        """One recorded optimizer step; its numbers, and whether any rank was interrupted."""
        started = time.perf_counter()
        waited_before = self.loader.wait_seconds
        host = next(batches)
        waited = self.loader.wait_seconds - waited_before
        values, stop_requested = self._update(host, interrupted)
        seconds = time.perf_counter() - started
        values |= {
            "pairs_per_second": self.config.data.global_batch / seconds,
            "step_seconds": seconds,
            "data_wait_share": waited / seconds,
            "memory_bytes": peak_memory_bytes(self.engine.device),
        }
        self._record("train", values)
        return values, stop_requested

    def close(self) -> None:
        """Close the records and leave the process group."""
        if self.telemetry is not None:
            self.telemetry.close()
        self.engine.close()

    def _update(self, host: HostBatch, interrupted: bool) -> tuple[dict[str, float], bool]:
        """One optimizer step; (loss terms, norm and rate; whether any rank was interrupted)."""
        state, training = self.state, self.config.training
        # Dropout is a function of (seed, step, rank): a resumed run draws the same.
        torch.manual_seed(_seed_of(self.config.seed, state.step, self.engine.rank))
        learning_rate = self.config.optimizer.learning_rate * learning_rate_share(
            self.config.schedule,
            state.step,
            steps_per_epoch=self.loader.steps_per_epoch,
            total_steps=self.total_steps,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        batch = self.transform(host, self.engine.device, train=True)
        pieces = batch.split(training.accumulation_steps)
        terms: dict[str, Tensor] = {}
        for number, piece in enumerate(pieces, start=1):
            is_last = number == len(pieces)
            reduction = (
                contextlib.nullcontext() if is_last else self.engine.without_reduction(self.model)
            )
            with reduction:
                outputs = self.model(piece)
                piece_terms = self.method.loss(outputs)
                self.engine.backward(piece_terms["total"] / len(pieces))
            for name, value in piece_terms.items():
                terms[name] = terms.get(name, 0) + value.detach() / len(pieces)
        norm = gradient_norm(self.parameters)
        packed = torch.stack([*terms.values(), norm.to(terms["total"].dtype)])
        counts = packed.new_tensor([float(host.replaced), float(interrupted)])
        *means, mean_norm, replaced, any_flag = self.engine.mean_over_ranks(
            torch.cat([packed, counts])
        ).tolist()
        values = dict(zip(terms, means, strict=True))
        if not all(map(math.isfinite, [*means, mean_norm])):
            self._refuse_non_finite(host, {**values, "gradient_norm": mean_norm})
        if training.clip_gradient_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, training.clip_gradient_norm, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.samples_consumed += self.config.data.global_batch
        values |= {
            "gradient_norm": mean_norm,
            "learning_rate": learning_rate,
            "epoch": state.samples_consumed / self.loader.samples_per_epoch,
            "replaced_samples": round(replaced * self.engine.world_size),
        }
        return values, any_flag > 0

    def _refuse_non_finite(self, host: HostBatch, values: dict[str, float]) -> None:
        """Name the samples of this rank's batch in a file and stop; weights are untouched."""
        step, rank = self.state.step, self.engine.rank
        bad = ", ".join(f"{k}={v}" for k, v in values.items() if not math.isfinite(v))
        path = self.run.path / f"non_finite_step{step}_rank{rank}.json"
        path.write_text(json.dumps({"step": step, "rank": rank, "keys": host.keys}))
        raise NonFiniteLossError(
            f"step {step + 1}: {bad}: training stopped before the update (samples in {path}); "
            "lower optimizer.learning_rate or set training.clip_gradient_norm, then run the same "
            "command in another run_folder"
        )

    def _validate(self, progress: TrainingProgress) -> tuple[bool, bool]:
        started = time.monotonic()
        self.engine.copy_from_main(list(self.method.buffers()))
        metrics = self.validator.measure(self.method)
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            raise NonFiniteLossError(
                f"validation at step {self.state.step}: {', '.join(bad)} not finite: training "
                "stopped; lower optimizer.learning_rate, and use another run_folder"
            )
        is_best, stop = judge_validation(self.state, self.config.training, metrics)
        self._record("validate", metrics | {"validation_seconds": time.monotonic() - started})
        if self.telemetry is not None and self.config.training.pictures:
            pictures = self.validator.pictures(self.method)
            self.telemetry.show(self.state.step, pictures)
        progress.say(
            f"validation at step {self.state.step}: total {metrics['total']:.4f}, "
            f"R@5 {100 * metrics['recall_at_5']:.1f}%" + (" (best)" if is_best else "")
        )
        self.model.train()
        return is_best, stop

    def _record(self, split: str, values: dict[str, float]) -> None:
        if self.telemetry is not None:
            self.telemetry.record(self.state.step, split, values)

    def _save(self, is_best: bool) -> None:
        self.engine.wait_for_all()
        if self.engine.is_main:
            if self.telemetry is not None:
                self.telemetry.flush()
            save_checkpoint(
                self.run.checkpoints,
                checkpoint_of(self.config, self.method, self.optimizer, self.state),
                keep=self.config.training.keep_checkpoints,
                is_best=is_best,
            )
        self.engine.wait_for_all()


def checkpoint_of(
    config: PretrainConfig,
    method: Method,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
) -> Checkpoint:
    """All that decides the future, with copies of nothing: save it before the next step."""
    optimizer_state: dict[str, Any] = optimizer.state_dict()
    return Checkpoint(
        state=TrainingState(**asdict(state)),
        config=config.model_dump(mode="json"),
        model=method.state_dict(),
        optimizer=optimizer_state,
    )


def _seed_of(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def peak_memory_bytes(device: torch.device) -> float:
    """The most memory in use so far: of the device's tensors, or of this process on a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
