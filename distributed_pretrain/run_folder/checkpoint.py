"""Checkpoints on disk: written atomically, checked before use, without pickle.

    checkpoints/step_00001000/model.safetensors      weights and running statistics
                              optimizer.safetensors  its tensors, by their path in the state dict
                              optimizer.json         the state dict around them
                              state.json             counters, scores, config, library versions
                              COMPLETE               written last: sha256 of each other file
    checkpoints/last, checkpoints/best               links to step folders

A folder is filled under another name and renamed when whole, so `step_...` never holds half
a checkpoint even if the machine dies. Saving off the critical path is `checkpoint_writer`'s.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from data_shards.errors import InputError, warn
from data_shards.files.atomic import made_whole, move, remedy_of, remove, sync, tidy_up
from data_shards.files.regular import parse_json, read_regular
from distributed_pretrain.run_folder import tensor_files
from distributed_pretrain.run_folder.intact import (
    MODEL_FILE,
    OPTIMIZER_FILE,
    OPTIMIZER_TREE_FILE,
    DamagedCheckpointError,
    Identity,
    Owner,
    Sealed,
    TrainingState,
)
from distributed_pretrain.run_folder.step_folders import (
    BEST,
    LAST,
    MARKER,
    STATE_FILE,
    STEP_PATTERN,
    named_by,
    point_link,
    refuse_stray,
    step_folder,
    step_folders,
    step_of,
)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory, its tensors on any device (on the CPU when loaded)."""

    state: TrainingState
    config: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    identity: Identity = field(default_factory=Identity)


def save_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    *,
    keep: int,
    is_best: bool,
    after_piece: Callable[[], object] = lambda: None,
) -> Path:
    """Write `folder/step_<n>` atomically, point `last` (and `best`) at it, drop old ones.

    Keeps the newest `keep`, the best, and the newest from before skipped steps. Raises InputError
    for a full disk and the like, with the previous checkpoints untouched and nothing half-written
    left. `after_piece` is called after each mebibyte or two: a writer in the background rests.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = step_folder(folder, checkpoint.state.step)
    try:
        tidy_up(folder, STEP_PATTERN)
        with made_whole(final, folder=True) as unfinished:
            unfinished.mkdir()
            digests = {
                name: tensor_files.write_hashed(unfinished / name, content, after_piece=after_piece)
                for name, content in _content(checkpoint).items()
            }
            tensor_files.write_hashed(unfinished / MARKER, [json.dumps(digests, indent=1).encode()])
        point_link(folder / LAST, final)
        if is_best:
            point_link(folder / BEST, final)
        sync(folder)
    except OSError as error:
        raise InputError(
            f"{final}: not written ({error.strerror}): {remedy_of(error)}, then the same command "
            "goes on from the previous checkpoint"
        ) from error
    last_good_step = checkpoint.state.step - checkpoint.state.consecutive_skips
    _drop_old(folder, keep, last_good_step=last_good_step)
    return final


def load_checkpoint(folder: Path, owner: Owner | None = None) -> Checkpoint:
    """The checkpoint in one step folder (or link), which must be `owner`'s; read once.

    Raises DamagedCheckpointError, naming it.
    """
    sealed = Sealed.open(folder)
    saved = sealed.saved(owner)
    model = _tensors_of(sealed, MODEL_FILE)
    moments = _tensors_of(sealed, OPTIMIZER_FILE)
    try:
        tree = parse_json(sealed.read(OPTIMIZER_TREE_FILE))
        optimizer = tensor_files.join_tensors(tree, moments)
    except DamagedCheckpointError:
        raise
    except ValueError as error:
        what = f"{OPTIMIZER_FILE} or {OPTIMIZER_TREE_FILE} is damaged ({error}): not used"
        raise DamagedCheckpointError(folder, what) from error
    return Checkpoint(saved.state, saved.config, model, optimizer, saved.identity)


def load_weights(
    folder: Path, like: Mapping[str, Tensor], owner: Owner | None = None
) -> dict[str, Tensor]:
    """Only the model weights of one step folder (or link), after the same checks of what is read.

    `like` is the state dict of the model that is to have them, as it was built: raises
    DamagedCheckpointError for tensors of other names, shapes or types, or with numbers that are
    not finite, too.
    """
    sealed = Sealed.open(folder)
    sealed.saved(owner)
    model = _tensors_of(sealed, MODEL_FILE)
    mismatch = tensor_files.first_mismatch(model, like)
    if mismatch := mismatch or tensor_files.first_not_finite(model, like):
        raise DamagedCheckpointError(folder, f"not of this model: {mismatch}: not used")
    return model


def _tensors_of(sealed: Sealed, name: str) -> dict[str, Tensor]:
    content = sealed.read(name)
    try:
        return tensor_files.parse_tensors(content)
    except ValueError as error:
        raise DamagedCheckpointError(
            sealed.folder, f"{name} is damaged ({error}): not used"
        ) from error


def mend_links(folder: Path) -> None:
    """Make links again of what a copy made of `last` and `best`, naming each on stderr.

    Raises InputError for what names no checkpoint of the run, or is another one than that it names.
    """
    for link in (folder / LAST, folder / BEST):
        refuse_stray(link)
        if link.is_symlink() or not os.path.lexists(link):
            continue
        target = named_by(link)
        if target is None:
            raise InputError(f"{link}: neither a link to a checkpoint nor a copy of one: delete it")
        if link.is_dir():
            if not target.exists():
                move(link, target)
            elif _marker_bytes(link) == _marker_bytes(target):
                remove(link)
            else:
                raise InputError(
                    f"{link}: a folder, and another checkpoint than {target.name}, which it would "
                    "name: move it away"
                )
        point_link(link, target)
        warn(f"{link}: was a copy, and is a link to {target.name} again")


def drop_checkpoints_after(folder: Path, step: int) -> None:
    """Delete the steps (and a `best`) of an abandoned future, and point `last` before it."""
    for candidate in step_folders(folder):
        if step_of(candidate) > step:
            _delete(candidate)
        else:
            point_link(folder / LAST, candidate)
    best = folder / BEST
    if best.is_symlink() and not best.exists():
        best.unlink()


def _content(checkpoint: Checkpoint) -> dict[str, Iterable[bytes | memoryview]]:
    """What each of the files holds."""
    tree, tensors = tensor_files.split_tensors(checkpoint.optimizer)
    state = {
        "state": asdict(checkpoint.state),
        "config": checkpoint.config,
        "identity": asdict(checkpoint.identity),
        "versions": {name: version(name) for name in ("torch", "transformers", "radalign")},
    }
    return {
        MODEL_FILE: tensor_files.safetensors_content(checkpoint.model),
        OPTIMIZER_FILE: tensor_files.safetensors_content(tensors),
        OPTIMIZER_TREE_FILE: [json.dumps(tree).encode()],
        STATE_FILE: [json.dumps(state, indent=1).encode()],
    }


def _drop_old(folder: Path, keep: int, *, last_good_step: int) -> None:
    """Spares the best, and the newest from before skipped steps: a rewind goes back to it."""
    best = named_by(folder / BEST)
    if best is None and os.path.lexists(folder / BEST):
        return  # it may name any
    folders = step_folders(folder)
    good = [each for each in folders if step_of(each) <= last_good_step]
    spared = {each.name for each in [*folders[-keep:], *good[-1:], *([best] if best else [])]}
    for old in folders:
        if old.name not in spared:
            _delete(old)


def _delete(old: Path) -> None:
    if not old.is_symlink():  # else it is another run's, and the link alone is ours
        (old / MARKER).unlink(missing_ok=True)  # a half-deleted folder must not look whole
    remove(old)


def _marker_bytes(folder: Path) -> bytes | None:
    marker = folder / MARKER
    return read_regular(marker) if marker.is_file() else None
