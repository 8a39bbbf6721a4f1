"""`load`: a run folder, or an export of one, as a `Model`."""

from __future__ import annotations

from pathlib import Path

import torch

from data_shards.errors import InputError
from data_shards.records.manifest import read_manifest
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.handover.model import Model
from distributed_pretrain.pretrain.build import load_method
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.intact import StoredImages, read_saved
from distributed_pretrain.run_folder.step_folders import BEST, UNTRAINED


def load(
    run_folder: str | Path,
    *,
    checkpoint: str = BEST,
    device: str | torch.device | None = None,
) -> Model:
    """The model of a run folder: `checkpoint` is best, last, or a step folder's name.

    On `device`; None: a GPU where there is one. Nothing of the run's shards is read, but for runs
    of earlier releases. Raises InputError for a folder without run or checkpoint.
    """
    run = RunFolder(Path(run_folder))
    trained = load_method(run.path, checkpoint)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    there = torch.device(device)
    return Model(
        method=trained.method.to(there).eval().requires_grad_(False),
        tokenizer=trained.tokenizer,
        data=trained.config.data,
        stored=stored_images(run, trained.config.data, checkpoint),
        device=there,
    )


def stored_images(run: RunFolder, data: DataConfig, checkpoint: str) -> StoredImages:
    """What the run knows of the images of its shards. Raises InputError where it must ask them."""
    known = None
    if run.checkpoint_name(checkpoint) != UNTRAINED:
        known = read_saved(run.checkpoint(checkpoint)).state.stored_images
    if known is not None:
        return known
    try:
        return StoredImages.of(read_manifest(data.shards))
    except InputError as error:
        raise InputError(
            f"{run.path}: says not how the images of its shards are, and {error}: put them there, "
            "or choose a checkpoint that this release wrote"
        ) from error
