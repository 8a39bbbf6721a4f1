"""Going on from a run's newest checkpoint, on all ranks."""

from __future__ import annotations

import torch

from distributed_pretrain.ranks import copy_from_main, wait_for_all
from distributed_pretrain.run_folder.checkpoint import load_checkpoint
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.intact import (
    DamagedCheckpointError,
    Owner,
    TrainingState,
    find_latest_intact,
)
from distributed_pretrain.run_folder.step_folders import step_folder, step_of
from distributed_pretrain.training.engine.ddp import Engine


def load_newest(
    engine: Engine, run: RunFolder, owner: Owner | None, *, until_step: int | None = None
) -> TrainingState | None:
    """The state of `owner`'s newest intact checkpoint, whose weights the engine gets; or None.

    Raises DamagedCheckpointError for one whose tensors are not those of the model.
    """
    newest = None
    if engine.is_main:
        newest, _ = find_latest_intact(run.checkpoints, until_step=until_step, owner=owner)
    # Rank 0 chooses for all: a shared folder may look older from another node.
    step = torch.tensor(0 if newest is None else step_of(newest), device=engine.device)
    copy_from_main([step])
    if not step:
        return None
    folder = step_folder(run.checkpoints, int(step))
    checkpoint = load_checkpoint(folder)
    if mismatch := engine.mismatch(checkpoint.model, checkpoint.optimizer):
        raise DamagedCheckpointError(
            folder,
            f"not of this model: {mismatch}: move the folder away, and the same command goes on "
            "from the checkpoint before",
        )
    engine.load_state(checkpoint.model, checkpoint.optimizer)
    wait_for_all()  # all have read it before rank 0 tidies up
    return checkpoint.state
