"""The training loop: one global batch a step, validation and checkpoints between steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal, NoReturn

import torch

from distributed_pretrain.data.host_batch import HostBatch
from distributed_pretrain.data.loader import TrainingLoader
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.pretrain.validation import Validator
from distributed_pretrain.ranks import copy_from_main, from_main, wait_for_all
from distributed_pretrain.run_folder.checkpoint import Checkpoint, TrainingState, load_checkpoint
from distributed_pretrain.run_folder.checkpoint_writer import CheckpointWriter
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.faults.interruption import InterruptionFlag
from distributed_pretrain.training.faults.liveness import Liveness
from distributed_pretrain.training.faults.skips import NonFiniteError
from distributed_pretrain.training.flops import (
    StepFlops,
    model_flops_utilisation,
    peak_flops_per_second,
)
from distributed_pretrain.training.progress import TrainingProgress
from distributed_pretrain.training.recorder import Telemetry
from distributed_pretrain.training.settings import TrainingConfig
from distributed_pretrain.training.step import Updater
from distributed_pretrain.training.stopping import judge_validation


class Trainer:
    """Trains from `state` on. Everything it needs is built by `pretrain`."""

    def __init__(
        self,
        config: PretrainConfig,
        *,
        engine: Engine,
        run: RunFolder,
        loader: TrainingLoader,
        updater: Updater,
        validator: Validator,
        state: TrainingState,
        telemetry: Telemetry | None,
        flops: StepFlops,
        liveness: Liveness,
    ) -> None:
        self.config = config
        self.engine = engine
        self.run = run
        self.loader = loader
        self.updater = updater
        self.validator = validator
        self.state = state
        self.telemetry = telemetry
        self.flops = flops
        self.liveness = liveness
        self.peak_flops_per_second = peak_flops_per_second_of(config.training, engine.device)
        self.checkpoints: CheckpointWriter | None = None
        if engine.is_main:
            keep = config.training.keep_checkpoints
            self.checkpoints = CheckpointWriter(
                run.checkpoints, keep=keep, while_writing=liveness.kept_alive
            )
        self.total_steps = updater.total_steps
        self.validate_every = config.training.validate_every_steps or loader.steps_per_epoch
        self.save_every = config.training.checkpoint_every_steps or loader.steps_per_epoch

    def fit(self, interruption: InterruptionFlag) -> bool:
        """Train to the end; False when a signal ended it early (a checkpoint is saved)."""
        state, training = self.state, self.config.training
        progress = TrainingProgress(
            first_step=state.step,
            total_steps=self.total_steps,
            interval_seconds=training.log_interval_seconds,
            enabled=self.engine.is_main,
        )
        batches = self.loader.batches(state.samples_consumed)
        self.engine.method.train()
        try:
            if self.total_steps == 0:  # a starting point: there is nothing to train
                state.finished = True
                self._save(is_best=True)
            while not state.finished:
                values, stop_requested = self.step(batches, interrupted=lambda: interruption.raised)
                progress.update(
                    state.step,
                    loss=values.get("total", math.nan),
                    pairs_per_second=values["pairs_per_second"],
                )
                if state.skipped_steps >= training.non_finite.stop_after:
                    self._refuse_to_go_on(f"{state.skipped_steps} steps of this run")
                if state.consecutive_skips >= training.non_finite.rewind_after:
                    self._rewind(progress)
                    continue
                is_best = False
                state.finished = state.step >= self.total_steps
                if state.finished or state.step % self.validate_every == 0:
                    is_best, stop = self._validate(progress)
                    state.finished |= stop
                due = state.step % self.save_every == 0
                if due or is_best or state.finished or stop_requested:
                    self._save(is_best)
                if stop_requested and not state.finished:
                    self._finish_saving()
                    progress.say(f"interrupted at step {state.step}: checkpoint saved")
                    return False
            self._finish_saving()
            return True
        finally:
            batches.close()
            progress.close()

    def step(
        self, batches: Iterator[HostBatch], *, interrupted: Callable[[], bool] = lambda: False
    ) -> tuple[dict[str, float], bool]:
        """One recorded step; its numbers, and whether any rank was interrupted."""
        started = time.perf_counter()
        waited_before = self.loader.wait_seconds
        self.liveness.at(self.state.step, "waiting for data")
        host = next(batches)
        waited = self.loader.wait_seconds - waited_before
        self.liveness.at(self.state.step, "training")
        outcome = self.updater.step(
            self.state, host, data_wait_seconds=waited, interrupted=interrupted
        )
        seconds = time.perf_counter() - started
        flops = self._flops_of(host)
        values = outcome.values | {
            "pairs_per_second": self.config.data.global_batch / seconds,
            "step_seconds": seconds,
            "data_wait_share": waited / seconds,
            "model_flops_per_second": flops / seconds,
        }
        utilisation = model_flops_utilisation(flops, seconds, self.peak_flops_per_second)
        if utilisation is not None:
            values["mfu"] = utilisation
        self._record("train", values)
        return values, outcome.interrupted

    def _flops_of(self, host: HostBatch) -> float:
        """Operations of this rank's share; a first pass of exact accumulation is none of them."""
        training = self.config.training
        batches = training.accumulation_steps if training.accumulation == "plain" else 1
        rows, tokens = host.report.token_ids.shape
        return batches * self.flops.per_step(rows=rows // batches, tokens=tokens)

    def close(self) -> None:
        """End the last save and close the records."""
        try:
            if self.checkpoints is not None:
                self.checkpoints.close()
        finally:
            if self.telemetry is not None:
                self.telemetry.close()

    def _validate(self, progress: TrainingProgress) -> tuple[bool, bool]:
        method = self.engine.method
        started = time.monotonic()
        copy_from_main(method.buffers())
        metrics = self.validator.measure(
            method, before_batch=lambda: self.liveness.at(self.state.step, "validating")
        )
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            raise NonFiniteError(
                f"validation at step {self.state.step}: {', '.join(bad)} not finite: training "
                "stopped; lower optimizer.learning_rate, and use another run_folder"
            )
        is_best, stop = judge_validation(
            self.state, self.config.training, self.config.schedule, metrics
        )
        self._record("validate", metrics | {"validation_seconds": time.monotonic() - started})
        if self.config.training.pictures:
            # On every rank: a forward of rank 0 alone could wait for the others' parameters.
            pictures = self.validator.pictures(method)
            if self.telemetry is not None:
                self.telemetry.show(self.state.step, pictures)
        progress.say(
            f"validation at step {self.state.step}: {_headline(metrics)}"
            + (" (best)" if is_best else "")
        )
        method.train()
        return is_best, stop

    def _rewind(self, progress: TrainingProgress) -> None:
        """Go back to the weights from before the skipped steps, and on with the next samples."""
        state = self.state
        last_good = state.step - state.consecutive_skips
        self._finish_saving()
        step = self.run.latest_step(until_step=last_good) if self.engine.is_main else None
        step = from_main(step or 0, self.engine.device)
        if not step:
            self._refuse_to_go_on(
                f"{state.consecutive_skips} steps in a row, and no checkpoint is older"
            )
        checkpoint = load_checkpoint(self.run.checkpoint_at(step))
        self.engine.load_state(checkpoint.model, checkpoint.optimizer)
        wait_for_all()  # all have read it before rank 0 tidies up
        for name, value in vars(
            replace(
                checkpoint.state,
                samples_consumed=state.samples_consumed,
                skipped_steps=state.skipped_steps,
                consecutive_skips=0,
                rewinds=state.rewinds + 1,
            )
        ).items():
            setattr(state, name, value)
        if self.engine.is_main:
            self.run.drop_checkpoints_after(state.step)
        if self.telemetry is not None:
            self.telemetry.cut_back(state.step)
        wait_for_all()
        progress.say(
            f"losses or gradients not finite: back to step {state.step}, and on with the samples "
            f"after {state.samples_consumed}"
        )

    def _refuse_to_go_on(self, how_often: str) -> NoReturn:
        raise NonFiniteError(
            f"step {self.state.step}: losses or gradients were not finite in {how_often}: training "
            f"stopped (samples in {self.run.skipped}); lower optimizer.learning_rate or set "
            "training.clip_gradient_norm, then run the same command in another run_folder"
        )

    def _record(self, split: str, values: dict[str, float]) -> None:
        if self.telemetry is not None:
            self.telemetry.record(self.state.step, split, values)

    def _save(self, is_best: bool) -> None:
        self.liveness.at(self.state.step, "saving")
        # Every rank takes part: parts of the state may lie on each.
        checkpoint = Checkpoint(
            state=replace(self.state),
            config=self.config.model_dump(mode="json"),
            model=self.engine.model_state(),
            optimizer=self.engine.optimizer_state(),
        )
        if self.telemetry is not None:
            self.telemetry.flush()
        if self.checkpoints is not None:
            self.checkpoints.save(checkpoint, is_best=is_best)

    def _finish_saving(self) -> None:
        """Return when every save so far is on the disk, on all ranks."""
        if self.checkpoints is not None:
            self.checkpoints.wait()
        wait_for_all()


def _headline(metrics: dict[str, float]) -> str:
    shown = {"R@5": "recall_at_5", "AUROC": "auroc"}
    shares = [
        f"{label} {100 * metrics[name]:.1f}%" for label, name in shown.items() if name in metrics
    ]
    return ", ".join([f"total {metrics['total']:.4f}", *shares])


def peak_flops_per_second_of(training: TrainingConfig, device: torch.device) -> float | None:
    """The peak that `mfu` is a share of: as configured, or that of the device where it is known."""
    if training.peak_teraflops is not None:
        return training.peak_teraflops * 1e12
    if device.type != "cuda":
        return None
    arithmetic: Literal["bf16", "tf32", "float32"] = "bf16"
    if training.precision == "float32":
        arithmetic = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "float32"
    return peak_flops_per_second(torch.cuda.get_device_name(device), arithmetic)
