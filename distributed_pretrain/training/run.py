"""A training run from its config: built, gone on with from its newest checkpoint, and ended."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import torch

from data_shards.command_line import shell_line
from data_shards.errors import InputError
from data_shards.processes import InterruptionFlag
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.ranks import words_of_all
from distributed_pretrain.run_folder.checkpoint import mend_links
from distributed_pretrain.run_folder.checkpoint_writer import CheckpointWriter
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.identity import identity_of, note_saved, settle_identity
from distributed_pretrain.run_folder.intact import Owner
from distributed_pretrain.run_folder.newest import NewestCheckpoint
from distributed_pretrain.training.compiling import compile_encoders
from distributed_pretrain.training.engine.ddp import Engine, build_optimizer
from distributed_pretrain.training.engine.device import (
    own_gpu,
    refuse_a_shared_gpu,
    refuse_missing_gpus,
)
from distributed_pretrain.training.faults.liveness import Liveness
from distributed_pretrain.training.flops import StepFlops
from distributed_pretrain.training.loop import BatchSource, Trainer
from distributed_pretrain.training.memory.estimate import (
    GIB,
    MemoryEstimate,
    device_bytes,
    refuse_what_does_not_fit,
)
from distributed_pretrain.training.memory.refused import refusals_told
from distributed_pretrain.training.recorder import Recorder
from distributed_pretrain.training.resuming import resumed_state
from distributed_pretrain.training.settings import RunConfig, TrainingConfig
from distributed_pretrain.training.step import Stepper
from distributed_pretrain.training.validation import Validation


@dataclass(frozen=True)
class Parts:
    """What is trained, on what, and how it is judged: a pre-training method, or a downstream head.

    `objective` is on the engine's device. `count_flops` counts its operations and `estimate_memory`
    what it needs of the device with such settings, before it is compiled or wrapped.
    """

    objective: Objective
    loader: BatchSource
    validation: Validation
    count_flops: Callable[[], StepFlops] = StepFlops
    estimate_memory: Callable[[TrainingConfig], MemoryEstimate] | None = None


BuildParts = Callable[[Engine, RunFolder], Parts]


def train(config: RunConfig, build: BuildParts) -> bool:
    """Train to the end of `config`, from its run folder's newest intact checkpoint if any.

    True when the run is complete; False when a signal ended it after a checkpoint. Raises
    InputError for anything wrong with the config, the data or the folder, before the first
    step, NonFiniteError and MemoryRefusedError during training, and PeerError when another rank is
    the cause.
    """
    engine = make_engine(config.training)
    run = RunFolder(config.run_folder)
    liveness = Liveness(
        rank=engine.rank,
        world_size=engine.world_size,
        timeout_seconds=config.training.rank_timeout_seconds,
        # Before the collective itself gives up: NCCL's watchdog would abort without a line.
        hang_timeout_seconds=0.9 * config.training.collective_timeout_seconds,
    )
    # Until the very end: launchers send SIGTERM to the rest when one rank has died, and what
    # these still do then is to say so and to end their save.
    with InterruptionFlag() as interruption, contextlib.ExitStack() as ending:
        ending.callback(engine.close)
        ending.enter_context(liveness)
        if engine.is_main:
            ending.enter_context(run.locked())
        trainer = build_trainer(config, engine, run, liveness, build)
        ending.callback(trainer.close)
        if trainer.state.finished:
            if engine.is_main:
                print(f"{config.run_folder}: already complete", file=sys.stderr)
            return True
        if engine.is_main:
            _announce(trainer)
        with refusals_told(config.training):
            return trainer.fit(interruption)


def make_engine(training: TrainingConfig) -> Engine:
    """This process's part in the ranks that its launcher's variables describe.

    Raises InputError where GPUs that it is to use are not there.
    """
    refuse_missing_gpus(training)
    engine = _engine_of(training)
    if engine.device.type == "cuda" and engine.world_size > 1:
        gpus = words_of_all(
            own_gpu(engine.device),
            rank=engine.rank,
            ranks=engine.world_size,
            timeout_seconds=training.collective_timeout_seconds,
        )
        refuse_a_shared_gpu(gpus)
    return engine


def _engine_of(training: TrainingConfig) -> Engine:
    if training.distributed.name == "ddp":
        return Engine(training)
    # DeepSpeed takes seconds to import, and not everybody has it.
    from distributed_pretrain.training.engine.deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(training)


def build_trainer(
    config: RunConfig, engine: Engine, run: RunFolder, liveness: Liveness, build: BuildParts
) -> Trainer:
    """Every part of a run in this process, at its newest intact checkpoint or the beginning."""
    try:
        config.check_ranks(engine.world_size)
        newest = None
        if engine.is_main:
            run.prepare(config)
            mend_links(run.checkpoints)
            newest = NewestCheckpoint(run.checkpoints, Owner(config, identity_of(run)))
            settle_identity(run, newest)
            run.quarantine.mend()
        parts = build(engine, run)
        if parts.objective.term_weights:
            refuse_unmeasured(config, parts.validation.metrics)
        return _trainer_of(config, engine, run, liveness, parts, newest)
    except BaseException:
        if engine.is_main:
            run.discard()
        raise


def refuse_unmeasured(config: RunConfig, known: Collection[str]) -> None:
    """Raise InputError unless what the best checkpoint and the schedule go by is measured."""
    watched = {"training.best_metric": config.training.best_metric}
    if config.schedule.metric is not None:
        watched["schedule.metric"] = config.schedule.metric
    for field, wanted in watched.items():
        if wanted not in known:
            raise InputError(
                f"{field}={wanted!r} is not measured: choose one of {', '.join(sorted(known))}"
            )


def _trainer_of(
    config: RunConfig,
    engine: Engine,
    run: RunFolder,
    liveness: Liveness,
    parts: Parts,
    newest: NewestCheckpoint | None,
) -> Trainer:
    training, objective = config.training, parts.objective
    if training.channels_last:  # of convolutions' weights, which feature maps follow
        objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    memory = _checked_memory(config, engine, parts) if objective.term_weights else None
    flops = parts.count_flops() if objective.term_weights else StepFlops()
    engine.prepare(objective, build_optimizer(config.optimizer, objective))
    steps_per_epoch = parts.loader.order.steps_per_epoch
    total_steps = training.total_steps(steps_per_epoch) if objective.term_weights else 0
    # Only rank 0 chooses and writes checkpoints.
    owner = Owner(config, identity_of(run)) if engine.is_main else None
    state = resumed_state(config, engine, run, newest, total_steps)
    if training.compile:
        walks = training.gradient_norms_every_steps is not None
        compile_encoders(objective, walks_by_term=walks)
        engine.compares_passes = True
    recorder = checkpoints = None
    if engine.is_main and not state.finished:
        # What goes on from here writes the later lines again.
        run.skipped.keep(lambda line: line["samples_consumed"] <= state.samples_consumed)
        recorder = Recorder(run, resume_step=state.step)
        checkpoints = CheckpointWriter(
            run.checkpoints,
            keep=training.keep_checkpoints,
            while_writing=liveness.kept_alive,
            on_saved=partial(note_saved, run),
        )
    return Trainer(
        config,
        engine=engine,
        run=run,
        loader=parts.loader,
        stepper=Stepper(config, engine, run.skipped, steps_per_epoch, total_steps),
        validation=parts.validation,
        state=state,
        owner=owner,
        recorder=recorder,
        checkpoints=checkpoints,
        flops=flops,
        liveness=liveness,
        memory=memory,
    )


def _checked_memory(config: RunConfig, engine: Engine, parts: Parts) -> MemoryEstimate | None:
    """Tell and judge the estimate, on a GPU or where the config says what a device has."""
    capacity = device_bytes(config.training, engine.device)
    if capacity is None or parts.estimate_memory is None:
        return None
    estimate = parts.estimate_memory(config.training)
    refuse_what_does_not_fit(estimate, config, capacity, parts.estimate_memory)
    if engine.is_main:
        print(f"memory of a device: {estimate} of {capacity / GIB:.1f}", file=sys.stderr)
    return estimate


def _announce(trainer: Trainer) -> None:
    engine, state, total_steps = trainer.engine, trainer.state, trainer.stepper.total_steps
    ranks, device = engine.world_size, engine.device.type
    restarts = trainer.run.note_start(
        step=state.step, total_steps=total_steps, world_size=ranks, device=device
    )
    if trainer.recorder is not None:
        trainer.recorder.note_restarts(state.step, restarts)
    million = sum(p.numel() for p in engine.parameters) / 1e6
    start = f"going on from step {state.step}" if state.step else "starting"
    print(
        f"{trainer.run.path}: {start}: {total_steps} steps of {trainer.config.data.global_batch} "
        f"pairs on {ranks} x {device}, {million:.1f} M trained parameters\n"
        f"watch: {shell_line('tensorboard', '--logdir', trainer.run.tensorboard)}",
        file=sys.stderr,
    )
