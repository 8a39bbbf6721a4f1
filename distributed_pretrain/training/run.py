"""A training run from its config: built, gone on with from its newest checkpoint, and ended.

What is trained, on what, and how it is judged comes from the caller (`Parts`): a pre-training
method and a downstream head go the same way.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch._functorch.config

from data_shards.errors import InputError
from data_shards.processes import InterruptionFlag
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.ranks import from_main, wait_for_all
from distributed_pretrain.run_folder.checkpoint import (
    TrainingState,
    latest_step,
    load_checkpoint,
    set_damaged_aside,
)
from distributed_pretrain.run_folder.checkpoint_writer import CheckpointWriter
from distributed_pretrain.run_folder.folder import RunFolder, step_folder
from distributed_pretrain.training.engine.choice import make_engine
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.faults.liveness import Liveness
from distributed_pretrain.training.flops import StepFlops
from distributed_pretrain.training.loop import Trainer, TrainingBatches
from distributed_pretrain.training.optimizer import build_optimizer, use_channels_last
from distributed_pretrain.training.recorder import Recorder
from distributed_pretrain.training.settings import RunConfig
from distributed_pretrain.training.step import Stepper
from distributed_pretrain.training.validation import Validation


@dataclass(frozen=True)
class Parts:
    """What is trained, on what, and how it is judged.

    `objective` is on the engine's device. `data_name` is where the data lie and `data_sha256` tells
    what they are: a run goes on with the same alone. `count_flops` counts the objective's
    operations, before it is compiled or wrapped.
    """

    objective: Objective
    loader: TrainingBatches
    validation: Validation
    data_name: str
    data_sha256: str
    count_flops: Callable[[], StepFlops] = StepFlops.unknown


BuildParts = Callable[[Engine, RunFolder], Parts]


def train(config: RunConfig, build: BuildParts) -> bool:
    """Train to the end of `config`, from its run folder's newest intact checkpoint if any.

    True when the run is complete; False when a signal ended it after a checkpoint. Raises
    InputError for anything wrong with the config, the data or the folder, before the first
    step, NonFiniteError during training, and PeerError when another rank is the cause.
    """
    engine = make_engine(config.training, global_batch=config.global_batch)
    run = RunFolder(config.run_folder)
    # Until the very end: launchers send SIGTERM to the rest when one rank has died, and what
    # these still do then is to say so and to end their save.
    with InterruptionFlag() as interruption, contextlib.ExitStack() as ending:
        ending.callback(engine.close)
        liveness = ending.enter_context(_liveness_of(config, engine))
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
        return trainer.fit(interruption)


def _liveness_of(config: RunConfig, engine: Engine) -> Liveness:
    return Liveness(
        rank=engine.rank,
        world_size=engine.world_size,
        timeout_seconds=config.training.rank_timeout_seconds,
        # Before the collective itself gives up: NCCL's watchdog would abort without a line.
        hang_timeout_seconds=0.9 * config.training.collective_timeout_seconds,
    )


def build_trainer(
    config: RunConfig, engine: Engine, run: RunFolder, liveness: Liveness, build: BuildParts
) -> Trainer:
    """Every part of a run in this process, at its newest intact checkpoint or the beginning."""
    try:
        config.check_ranks(engine.world_size)
        if engine.is_main:
            run.prepare(config)
        parts = build(engine, run)
        _check_metric(config, parts)
        return _trainer_of(config, engine, run, liveness, parts)
    except BaseException:
        if engine.is_main:
            run.discard()
        raise


def _check_metric(config: RunConfig, parts: Parts) -> None:
    known, wanted = parts.validation.metrics, config.training.best_metric
    if parts.objective.term_weights and wanted not in known:
        raise InputError(
            f"training.best_metric={wanted!r} is not measured: "
            f"choose one of {', '.join(sorted(known))}"
        )


def _trainer_of(
    config: RunConfig, engine: Engine, run: RunFolder, liveness: Liveness, parts: Parts
) -> Trainer:
    training, objective = config.training, parts.objective
    if training.channels_last:
        use_channels_last(objective)
    flops = parts.count_flops() if objective.term_weights else StepFlops.unknown()
    engine.prepare(objective, build_optimizer(config.optimizer, objective))
    state = _resumed_state(engine, run, parts)
    if training.compile:
        # A backward that may overwrite what forward kept could not also be walked term by term.
        torch._functorch.config.donated_buffer = training.gradient_norms_every_steps is None
        engine.objective.compile()
    recorder = checkpoints = None
    if engine.is_main:
        # What goes on from here writes the later lines again.
        run.skipped.keep(lambda line: line["samples_consumed"] <= state.samples_consumed)
        recorder = Recorder(run, resume_step=state.step)
        checkpoints = CheckpointWriter(
            run.checkpoints, keep=training.keep_checkpoints, while_writing=liveness.kept_alive
        )
    steps_per_epoch = parts.loader.steps_per_epoch
    epoch_limit = training.epochs * steps_per_epoch
    total_steps = min(epoch_limit, training.max_steps or epoch_limit)
    return Trainer(
        config,
        engine=engine,
        run=run,
        loader=parts.loader,
        stepper=Stepper(
            config,
            engine=engine,
            skipped=run.skipped,
            steps_per_epoch=steps_per_epoch,
            total_steps=total_steps if objective.term_weights else 0,
        ),
        validation=parts.validation,
        state=state,
        recorder=recorder,
        checkpoints=checkpoints,
        flops=flops,
        liveness=liveness,
    )


def _resumed_state(engine: Engine, run: RunFolder, parts: Parts) -> TrainingState:
    """The state of the newest intact checkpoint, whose weights the engine gets, or a new one."""
    newest = None
    if engine.is_main:
        set_damaged_aside(run.checkpoints)
        newest = latest_step(run.checkpoints)
    # Rank 0 chooses for all: a shared folder may look older from another node.
    step = from_main(newest or 0, engine.device)
    if not step:
        return TrainingState(manifest_sha256=parts.data_sha256)
    checkpoint = load_checkpoint(step_folder(run.checkpoints, step))
    if checkpoint.state.manifest_sha256 != parts.data_sha256:
        raise InputError(
            f"{parts.data_name}: not the shards that {run.path} was trained on so far: put those "
            "back, or choose another run_folder"
        )
    engine.load_state(checkpoint.model, checkpoint.optimizer)
    wait_for_all()
    return checkpoint.state


def _announce(trainer: Trainer) -> None:
    engine, total_steps = trainer.engine, trainer.stepper.total_steps
    restarts = trainer.run.note_start(
        step=trainer.state.step,
        total_steps=total_steps,
        world_size=engine.world_size,
        device=engine.device.type,
    )
    if trainer.recorder is not None:
        trainer.recorder.note_restarts(trainer.state.step, restarts)
    million = sum(p.numel() for p in engine.parameters) / 1e6
    start = f"going on from step {trainer.state.step}" if trainer.state.step else "starting"
    print(
        f"{trainer.run.path}: {start}: {total_steps} steps of "
        f"{trainer.config.global_batch} pairs on {engine.world_size} x "
        f"{engine.device.type}, {million:.1f} M trained parameters\n"
        f"watch: tensorboard --logdir {trainer.run.tensorboard}",
        file=sys.stderr,
    )
