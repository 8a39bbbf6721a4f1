"""What a start goes on from: a checkpoint held against the run, and taken over by all ranks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from data_shards.errors import InputError
from data_shards.records.manifest import MANIFEST_NAME, file_sha256, read_manifest
from data_shards.remote.shards import ShardFiles
from distributed_pretrain.ranks import copy_from_main, wait_for_all
from distributed_pretrain.run_folder.checkpoint import Checkpoint, load_checkpoint
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.identity import refuse_to_begin_anew
from distributed_pretrain.run_folder.intact import (
    DamagedCheckpointError,
    StoredImages,
    TrainingState,
)
from distributed_pretrain.run_folder.newest import NewestCheckpoint
from distributed_pretrain.run_folder.step_folders import step_folder, step_of
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.settings import RunConfig


def resumed_state(
    config: RunConfig,
    engine: Engine,
    run: RunFolder,
    newest: NewestCheckpoint | None,
    total_steps: int,
) -> TrainingState:
    """The state of the newest checkpoint that fits, whose weights the engine gets, or a new one.

    `newest` is of rank 0 alone. Raises InputError where none of several fits, and for other shards
    than those of the run.
    """
    shards = config.data.files()
    folder = shards.manifest_folder()
    manifest_sha256 = file_sha256(folder / MANIFEST_NAME)
    if newest is not None:
        if newest.checkpoint is not None:
            _refuse_other_shards(newest.checkpoint.state, manifest_sha256, run, shards)
        newest.hold_against(partial(misfit, config, engine, total_steps))
        refuse_to_begin_anew(run, newest)
        newest.set_damaged_aside()
    state = take_over(engine, run.checkpoints, newest)
    state = state or TrainingState(manifest_sha256=manifest_sha256)
    _refuse_other_shards(state, manifest_sha256, run, shards)
    state.stored_images = StoredImages.of(read_manifest(folder))
    return state


def take_over(
    engine: Engine, checkpoints: Path, newest: NewestCheckpoint | None
) -> TrainingState | None:
    """The state of rank 0's `newest` checkpoint, whose weights every rank's engine gets; or None.

    Raises DamagedCheckpointError on a rank that reads others than those of the model.
    """
    found = None if newest is None else newest.folder
    # Rank 0 chooses for all: a shared folder may look older from another node.
    step = torch.tensor(0 if found is None else step_of(found), device=engine.device)
    copy_from_main([step])
    if not step:
        return None
    folder = step_folder(checkpoints, int(step))
    checkpoint = load_checkpoint(folder) if newest is None else newest.checkpoint
    assert checkpoint is not None
    if mismatch := engine.mismatch(checkpoint.model, checkpoint.optimizer):
        raise DamagedCheckpointError(folder, f"not of this model: {mismatch}: not used")
    engine.load_state(checkpoint.model, checkpoint.optimizer)
    state = checkpoint.state
    if engine.loss_scale is not None and state.loss_scale is not None:
        engine.loss_scale.set(state.loss_scale, state.loss_scale_updates)
    wait_for_all()  # all have read it before rank 0 tidies up
    return state


def misfit(
    config: RunConfig, engine: Engine, total_steps: int, checkpoint: Checkpoint
) -> str | None:
    """Why a checkpoint cannot be one of this run, though it is whole; None where it can."""
    if mismatch := engine.mismatch(checkpoint.model, checkpoint.optimizer):
        return f"not of this model: {mismatch}"
    moments = checkpoint.optimizer["state"].values()
    updates = int(max((float(each["step"]) for each in moments), default=0))
    return contradiction(checkpoint.state, config, total_steps=total_steps, updates=updates)


def contradiction(
    state: TrainingState, config: RunConfig, *, total_steps: int, updates: int
) -> str | None:
    """What a run cannot have counted so; None where all goes together.

    Each step takes a global batch and makes an update or is skipped; going back takes steps away,
    but neither samples nor skips. `updates` are those that the optimizer has made.
    """
    made, rest = divmod(state.samples_consumed, config.data.global_batch)
    least_skips = state.rewinds * config.training.non_finite.rewind_after
    counters = {
        "validations_without_improvement": state.validations_without_improvement,
        "validations_on_plateau": state.validations_on_plateau,
        "learning_rate_reductions": state.learning_rate_reductions,
        "skipped_steps": state.skipped_steps,
        "overflowed_steps": state.overflowed_steps,
    }
    if state.step > total_steps:
        return f"step={state.step}: the run has {total_steps}"
    if rest or not least_skips <= made - state.step <= state.rewinds * total_steps:
        return f"samples_consumed={state.samples_consumed} does not go with step={state.step}"
    for name, count in counters.items():
        if count > made:
            return f"{name}={count} does not go with step={state.step}"
    if not max(state.consecutive_skips, least_skips) <= state.skipped_steps:
        return f"skipped_steps={state.skipped_steps} does not go with the skips that led back"
    without = state.skipped_steps + state.overflowed_steps
    if not state.step - without <= updates <= state.step:
        return f"its optimizer made {updates} updates, which does not go with step={state.step}"
    early = config.training.early_stopping is not None
    if state.finished and state.step < total_steps and not early:
        return f"finished at step {state.step} of {total_steps}, without early stopping"
    return None


def _refuse_other_shards(
    state: TrainingState, manifest_sha256: str, run: RunFolder, shards: ShardFiles
) -> None:
    if state.manifest_sha256 != manifest_sha256:
        raise InputError(
            f"{shards}: not the shards that {run.path} was trained on so far: put those "
            "back, or choose another run_folder"
        )
