"""`load`: a run folder, or an export of one, as a `Model`."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers.utils import CONFIG_NAME, IMAGE_PROCESSOR_NAME

from data_shards.errors import InputError
from data_shards.records.manifest import read_manifest
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.tokenization import NoReports, ReportTokenizer, SentenceTokenizer
from distributed_pretrain.foreign_code import refuse_code
from distributed_pretrain.handover.model import Model
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.pretrain.build import load_method
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.intact import StoredImages, read_saved
from distributed_pretrain.run_folder.step_folders import BEST, UNTRAINED
from distributed_pretrain.training.engine.device import best_device


def load(
    folder: str | Path,
    *,
    checkpoint: str = BEST,
    device: str | torch.device | None = None,
) -> Model:
    """The model of a run folder, or of what `export --to transformers` made of one.

    `checkpoint`, of a run, is best, last, a step folder's name, or untrained. On `device`; None: a
    GPU where there is one. Nothing of the run's shards is read, but for runs of earlier releases,
    and untrained. Raises InputError for a folder without run or checkpoint, and for a device that
    is not there.
    """
    path = Path(folder)
    there = best_device() if device is None else _device(device)
    if is_export(path):
        return _exported(path, there)
    run = RunFolder(path)
    trained = load_method(run.path, checkpoint)
    return Model(
        config=trained.config,
        method=_ready(trained.method, there),
        tokenizer=trained.tokenizer,
        stored=stored_images(run, trained.config.data, checkpoint),
        device=there,
    )


def _device(said: str | torch.device) -> torch.device:
    """One that can be used. Raises InputError for any other."""
    try:
        return torch.empty(0, device=said).device
    except (RuntimeError, AssertionError) as error:  # a name of none; no driver; no CUDA in torch
        reason = str(error).splitlines()[0].partition(". ")[0].rstrip(".")
        raise InputError(
            f"device={said}: {reason}: give cpu, or none for a GPU where there is one"
        ) from error


def is_export(folder: Path) -> bool:
    """Whether it is a model of transformers and no run."""
    return all((folder / each).is_file() for each in (CONFIG_NAME, IMAGE_PROCESSOR_NAME))


def _exported(folder: Path, device: torch.device) -> Model:
    # It takes a second that no run needs.
    from distributed_pretrain.handover.huggingface import RadalignModel

    refuse_code(folder)
    try:
        model = RadalignModel.from_pretrained(folder)
    except InputError:
        raise
    except Exception as error:  # damaged files make loaders raise anything
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: cannot be read ({reason}): export it again") from error
    config = model.config.settings()
    tokenizer: ReportTokenizer = NoReports()
    if config.method.report_encoder is not None:
        tokenizer = SentenceTokenizer.load(folder, max_tokens=config.data.max_tokens)
    return Model(
        config=config,
        method=_ready(model.method, device),
        tokenizer=tokenizer,
        stored=model.config.stored(),
        device=device,
    )


def _ready(method: Method, device: torch.device) -> Method:
    """In evaluation mode, without gradients, where it is wanted."""
    return method.to(device).eval().requires_grad_(False)


def stored_images(run: RunFolder, data: DataConfig, checkpoint: str) -> StoredImages:
    """What the run knows of the images of its shards. Raises InputError where it must ask them."""
    known = None
    if run.checkpoint_name(checkpoint) != UNTRAINED:
        known = read_saved(run.checkpoint(checkpoint)).state.stored_images
    if known is not None:
        return known
    try:
        return StoredImages.of(read_manifest(data.files().manifest_folder()))
    except InputError as error:
        raise InputError(
            f"{run.path}: says not how the images of its shards are, and {error}: put them there, "
            "or choose a checkpoint that this release wrote"
        ) from error
