"""The training loop: one global batch a step, validation and checkpoints between steps."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import NoReturn, Protocol

from data_shards.errors import InputError, RunError
from data_shards.processes import InterruptionFlag
from distributed_pretrain.batch import Batch
from distributed_pretrain.data.order import GlobalOrder
from distributed_pretrain.ranks import copy_from_main, wait_for_all
from distributed_pretrain.run_folder.checkpoint import (
    Checkpoint,
    drop_checkpoints_after,
)
from distributed_pretrain.run_folder.checkpoint_writer import CheckpointWriter
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.intact import Identity, Owner, TrainingState
from distributed_pretrain.run_folder.newest import NewestCheckpoint
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.faults.liveness import Liveness
from distributed_pretrain.training.flops import StepFlops, device_peak
from distributed_pretrain.training.memory.estimate import MemoryEstimate
from distributed_pretrain.training.recorder import Recorder, TrainingProgress
from distributed_pretrain.training.resuming import misfit, take_over
from distributed_pretrain.training.settings import RunConfig
from distributed_pretrain.training.step import LaunchedStep, StepNumbers, Stepper
from distributed_pretrain.training.validation import Validation, evaluating, judge_validation


class NonFiniteError(RunError):
    """Losses or gradients are NaN or infinite too often: the message says where and what to do."""


class BatchSource(Protocol):
    """Where training's batches come from: a loader, or what was kept of one.

    `wait_seconds` is how long its consumer has waited so far.
    """

    wait_seconds: float

    @property
    def order(self) -> GlobalOrder:
        """Which samples come when."""

    def batches(self, samples_consumed: int = 0) -> Generator[Batch]:
        """Batches without end, from the one after `samples_consumed` on."""


@dataclass(frozen=True)
class _InFlight:
    launched: LaunchedStep
    started: float
    waited: float
    flops: float


@dataclass
class _Newest:
    """The newest step, while its numbers are on their way, and when the last ones arrived."""

    step: _InFlight | None = None
    last_arrival: float = 0.0


@dataclass(frozen=True)
class Trainer:
    """Trains from `state` on. Everything it needs is built by `training.run`.

    `owner`, `recorder` and `checkpoints` are of rank 0 alone, the latter two None where the run
    is finished. `memory` is what was estimated, where the device's memory is known.
    """

    config: RunConfig
    engine: Engine
    run: RunFolder
    loader: BatchSource
    stepper: Stepper
    validation: Validation
    state: TrainingState
    owner: Owner | None
    recorder: Recorder | None
    checkpoints: CheckpointWriter | None
    flops: StepFlops
    liveness: Liveness
    memory: MemoryEstimate | None = None
    newest: _Newest = field(default_factory=_Newest)

    def fit(self, interruption: InterruptionFlag) -> bool:
        """Train to the end; False when a signal ended it early (a checkpoint is saved)."""
        state, training = self.state, self.config.training
        validate_every = training.validate_every_steps or self.loader.order.steps_per_epoch
        save_every = training.checkpoint_every_steps or self.loader.order.steps_per_epoch
        seconds, enabled = training.log_interval_seconds, self.engine.is_main
        progress = TrainingProgress(state.step, self.stepper.total_steps, seconds, enabled=enabled)
        batches = self.loader.batches(state.samples_consumed)
        self.engine.objective.train()
        try:
            if self.stepper.total_steps == 0:  # a starting point: there is nothing to train
                state.finished = True
                self._save(is_best=True)
            while not state.finished:
                read = self.step(batches, interrupted=lambda: interruption.raised)
                at_end = state.step >= self.stepper.total_steps
                validates = at_end or state.step % validate_every == 0
                saves = state.step % save_every == 0
                # Alone it needs nobody's word; ranks learn of each other's with the numbers.
                stops = self.engine.world_size == 1 and interruption.raised
                stop_requested = stops or any(each.interrupted for each in read)
                if validates or saves or stop_requested or self.stepper.decides(state):
                    read += self.read_newest()
                    stop_requested |= any(each.interrupted for each in read)
                for each in read:
                    progress.update(each.step, each.values)
                if state.skipped_steps >= training.non_finite.stop_after:
                    self._refuse_to_go_on(f"{state.skipped_steps} steps of this run")
                if state.consecutive_skips >= training.non_finite.rewind_after:
                    self._rewind(progress)
                    continue
                is_best, state.finished = False, at_end
                if validates:
                    is_best, stop = self._validate(progress)
                    state.finished |= stop
                if saves or is_best or state.finished or stop_requested:
                    self._save(is_best)
                if stop_requested and not state.finished:
                    self._finish_saving()
                    progress.say(f"interrupted at step {state.step}: checkpoint saved")
                    return False
            self._finish_saving()
            return True
        except (InputError, RunError):
            self.read_newest()  # of the last step that ended well
            raise
        finally:
            batches.close()
            progress.close()

    @cached_property
    def peak(self) -> float | None:
        """What `mfu` is a share of, in operations a second."""
        return device_peak(self.config.training, self.engine.device)

    def step(
        self, batches: Iterator[Batch], *, interrupted: Callable[[], bool] = lambda: False
    ) -> list[StepNumbers]:
        """Launch a step; record, and return, the numbers of the one before, if not read yet."""
        started, state = time.perf_counter(), self.state
        waited_before = self.loader.wait_seconds
        self.liveness.at(state.step, "waiting for data")
        batch = next(batches)
        waited = self.loader.wait_seconds - waited_before
        self.liveness.at(state.step, "training")
        launched = self.stepper.step(
            state, batch, data_wait_seconds=waited, interrupted=interrupted
        )
        # Of this rank's share; the first pass of exact accumulation is no part of the model's.
        pieces = self.config.training.compared_parts(self.config.data.global_batch)
        rows, width = batch.report.token_ids.shape
        # Padding is none of the model's own either.
        tokens = sum(batch.report.lengths) / rows or width
        flops = pieces * self.flops.per_step(rows=rows // pieces, tokens=tokens)
        read = self.read_newest()
        self.newest.step = _InFlight(launched, started, waited, flops)
        return read

    def read_newest(self) -> list[StepNumbers]:
        """Record, and return, the numbers of the step that was launched last, if not read yet.

        Waits for the device: before whatever must know how that step ended.
        """
        newest, self.newest.step = self.newest.step, None
        if newest is None:
            return []
        read = self.stepper.read(self.state, newest.launched)
        # From the numbers of the step before to its own, unless something else came between.
        seconds = read.arrived - max(newest.started, self.newest.last_arrival)
        self.newest.last_arrival = read.arrived
        values = read.values | {
            "pairs_per_second": self.config.data.global_batch / seconds,
            "step_seconds": seconds,
            "data_wait_share": min(1.0, newest.waited / seconds),
            "model_flops_per_second": newest.flops / seconds,
        }
        if tokens_of_all := values.pop("tokens", 0):
            values["tokens_per_second"] = tokens_of_all / seconds
        if self.peak is not None:
            values["mfu"] = newest.flops / (seconds * self.peak)
        self._record("train", values, step=read.step)
        return [replace(read, values=values)]

    def close(self) -> None:
        """End the last save and close the records."""
        with contextlib.ExitStack() as ending:
            for each in (self.recorder, self.checkpoints):
                if each is not None:
                    ending.callback(each.close)

    def _validate(self, progress: TrainingProgress) -> tuple[bool, bool]:
        objective, state, training = self.engine.objective, self.state, self.config.training
        started = time.monotonic()
        copy_from_main(objective.buffers())
        metrics, measures = self.validation.run(
            autocast=self.engine.autocast,
            before_batch=lambda: self.liveness.at(state.step, "validating"),
        )
        known = self.validation.metrics
        if bad := ", ".join(name for name, value in metrics.items() if not math.isfinite(value)):
            raise NonFiniteError(
                f"validation at step {state.step}: {bad} not finite: training "
                "stopped; lower optimizer.learning_rate, and use another run_folder"
            )
        is_best, stop = judge_validation(state, training, self.config.schedule, metrics, known)
        metrics_and_time = metrics | {"validation_seconds": time.monotonic() - started}
        self._record("validate", metrics_and_time, step=state.step)
        if training.pictures:
            # On every rank: a forward of rank 0 alone could wait for the others' parameters.
            with evaluating(objective), self.engine.autocast():
                pictures = {k: v for each in measures for k, v in each.pictures().items()}
            if self.recorder is not None:
                self.recorder.show(state.step, pictures)
        shown = [each for each in known.values() if each.headline and each.name in metrics]
        headline = ", ".join(f"{each.title} {each.show(metrics[each.name])}" for each in shown)
        best = " (best)" if is_best else ""
        progress.say(f"validation at step {state.step}: {headline}{best}")
        return is_best, stop

    def _rewind(self, progress: TrainingProgress) -> None:
        """Go back to the weights from before the skipped steps, and on with the next samples."""
        state = self.state
        self._finish_saving()
        skipped = state.consecutive_skips
        newest, total_steps = None, self.stepper.total_steps
        if self.engine.is_main:
            until_step = state.step - skipped
            newest = NewestCheckpoint(self.run.checkpoints, self.owner, until_step=until_step)
            newest.hold_against(partial(misfit, self.config, self.engine, total_steps))
        last_good = take_over(self.engine, self.run.checkpoints, newest)
        if last_good is None:
            self._refuse_to_go_on(f"{skipped} steps in a row, and no checkpoint is older")
        vars(state).update(
            vars(last_good),
            samples_consumed=state.samples_consumed,
            skipped_steps=state.skipped_steps,
            consecutive_skips=0,
            rewinds=state.rewinds + 1,
        )
        if self.recorder is not None:
            drop_checkpoints_after(self.run.checkpoints, state.step)
            self.recorder.cut_back(state.step)
        wait_for_all()
        progress.say(
            f"losses or gradients not finite: back to step {state.step}, and on with the samples "
            f"after {state.samples_consumed}"
        )

    def _refuse_to_go_on(self, how_often: str) -> NoReturn:
        raise NonFiniteError(
            f"step {self.state.step}: losses or gradients were not finite in {how_often}: training "
            f"stopped (samples in {self.run.skipped.path}); lower optimizer.learning_rate or set "
            "training.clip_gradient_norm, then run the same command in another run_folder"
        )

    def _record(self, split: str, values: dict[str, float], *, step: int) -> None:
        if self.recorder is not None:
            self.recorder.record(step, split, values)

    def _save(self, is_best: bool) -> None:
        self.liveness.at(self.state.step, "saving")
        # Every rank takes part: parts of the state may lie on each.
        checkpoint = Checkpoint(
            state=replace(self.state),
            config=self.config.model_dump(mode="json"),
            model=self.engine.model_state(),
            optimizer=self.engine.optimizer_state(),
            identity=Identity() if self.owner is None else self.owner.identity,
        )
        if self.recorder is not None:
            self.recorder.flush()
        if self.checkpoints is not None:
            self.run.check_lock()
            self.checkpoints.save(checkpoint, is_best=is_best)

    def _finish_saving(self) -> None:
        """Return when every save so far is on the disk, on all ranks."""
        if self.checkpoints is not None:
            self.checkpoints.wait()
        wait_for_all()
