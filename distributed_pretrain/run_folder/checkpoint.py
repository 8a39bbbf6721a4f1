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

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from data_shards.errors import InputError
from distributed_pretrain.run_folder import tensor_files
from distributed_pretrain.run_folder.folder import (
    BEST,
    LAST,
    MARKER,
    step_folder,
    step_folders,
    step_of,
)

MODEL_FILE, OPTIMIZER_FILE = "model.safetensors", "optimizer.safetensors"
OPTIMIZER_TREE_FILE, STATE_FILE = "optimizer.json", "state.json"


@dataclass
class TrainingState:
    """What decides the future besides weights, optimizer and config.

    `manifest_sha256` says which shards the run learns from. Dropout is seeded by (seed, step,
    rank) and the data by (seed, epoch, sample), so no generator state is among it.
    `skipped_steps` counts the batches left out for a non-finite loss or gradient,
    `consecutive_skips` those since the last update, and `rewinds` the returns to a checkpoint.
    """

    step: int = 0
    samples_consumed: int = 0
    best_score: float | None = None
    stopping_reference: float | None = None
    validations_without_improvement: int = 0
    plateau_reference: float | None = None
    validations_on_plateau: int = 0
    learning_rate_reductions: int = 0
    finished: bool = False
    manifest_sha256: str = ""
    skipped_steps: int = 0
    consecutive_skips: int = 0
    rewinds: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory, its tensors on any device (on the CPU when loaded)."""

    state: TrainingState
    config: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Any]


class DamagedCheckpointError(InputError):
    """A checkpoint folder whose marker or checksums do not hold."""


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
    _remove_remains(folder)
    final = step_folder(folder, checkpoint.state.step)
    partial, replaced = final.with_suffix(".partial"), final.with_suffix(".replaced")
    try:
        partial.mkdir()
        digests = {
            name: tensor_files.write_hashed(partial / name, content, after_piece=after_piece)
            for name, content in _content(checkpoint).items()
        }
        tensor_files.write_hashed(partial / MARKER, [json.dumps(digests, indent=1).encode()])
        _sync(partial)
        if final.exists():
            final.rename(replaced)  # a rename is over at once, and a removal is not
        partial.rename(final)
        point_link(folder / LAST, final)
        if is_best:
            point_link(folder / BEST, final)
        _sync(folder)
    except OSError as error:
        raise InputError(
            f"{final}: not written ({error.strerror}): free some space, then the same command goes "
            "on from the previous checkpoint"
        ) from error
    finally:
        _remove_remains(folder)
    last_good_step = checkpoint.state.step - checkpoint.state.consecutive_skips
    _drop_old(folder, keep, last_good_step=last_good_step)
    return final


def load_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in one step folder (or link). Raises DamagedCheckpointError, naming it."""
    check_intact(folder)
    document = json.loads((folder / STATE_FILE).read_text())
    tree = json.loads((folder / OPTIMIZER_TREE_FILE).read_text())
    return Checkpoint(
        TrainingState(**document["state"]),
        document["config"],
        load_file(folder / MODEL_FILE),
        tensor_files.join_tensors(tree, load_file(folder / OPTIMIZER_FILE)),
    )


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Only the model weights of one step folder (or link), after the same checks."""
    check_intact(folder)
    return load_file(folder / MODEL_FILE)


def find_latest_intact(
    folder: Path, *, until_step: int | None = None
) -> tuple[Path | None, dict[Path, str]]:
    """The newest intact step folder (of at most `until_step`), and complaints about newer ones."""
    damaged = {}
    for candidate in reversed(step_folders(folder)):
        if until_step is None or step_of(candidate) <= until_step:
            try:
                check_intact(candidate)
            except DamagedCheckpointError as error:
                damaged[candidate] = str(error)
            else:
                return candidate, damaged
    return None, damaged


def set_damaged_aside(folder: Path) -> None:
    """Rename damaged checkpoints newer than the newest intact one, naming each on stderr."""
    intact, damaged = find_latest_intact(folder)
    for each, complaint in damaged.items():
        instead = intact.name if intact else "the beginning"
        print(f"warning: {complaint}; going on from {instead}", file=sys.stderr)
        aside = each.with_suffix(".damaged")
        shutil.rmtree(aside, ignore_errors=True)
        each.rename(aside)
        if intact is not None:
            point_link(folder / LAST, intact)


def latest_step(folder: Path, *, until_step: int | None = None) -> int | None:
    """The step of the newest intact checkpoint, of at most `until_step` steps."""
    found, _ = find_latest_intact(folder, until_step=until_step)
    return None if found is None else step_of(found)


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


def check_intact(folder: Path) -> None:
    """Raise DamagedCheckpointError unless the marker is there and every checksum holds."""

    def damaged(what: str) -> DamagedCheckpointError:
        return DamagedCheckpointError(f"checkpoint {folder}: {what}")

    marker = folder / MARKER
    if not marker.is_file():
        raise damaged(f"no {MARKER} marker: not used")
    try:
        digests = json.loads(marker.read_text())
    except ValueError as error:
        raise damaged(f"{MARKER} is damaged") from error
    for name in (MODEL_FILE, OPTIMIZER_FILE, OPTIMIZER_TREE_FILE, STATE_FILE):
        path = folder / name
        if not path.is_file():
            raise damaged(f"{name} is missing: not used")
        with path.open("rb") as file:
            if digests.get(name) != hashlib.file_digest(file, "sha256").hexdigest():
                raise damaged(f"{name} does not match its checksum: not used")


def _content(checkpoint: Checkpoint) -> dict[str, Iterable[bytes | memoryview]]:
    """What each of the files holds."""
    tree, tensors = tensor_files.split_tensors(checkpoint.optimizer)
    state = {
        "state": asdict(checkpoint.state),
        "config": checkpoint.config,
        "versions": {name: version(name) for name in ("torch", "transformers", "radalign")},
    }
    return {
        MODEL_FILE: tensor_files.safetensors_content(checkpoint.model),
        OPTIMIZER_FILE: tensor_files.safetensors_content(tensors),
        OPTIMIZER_TREE_FILE: [json.dumps(tree).encode()],
        STATE_FILE: [json.dumps(state, indent=1).encode()],
    }


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def point_link(link: Path, target: Path) -> None:
    """Make `link` a relative link to its neighbour `target`, atomically."""
    temporary = link.with_name(link.name + ".partial")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target.name)
    temporary.replace(link)


def _remove_remains(folder: Path) -> None:
    """Remove what a save that was cut short left behind: nobody else writes here."""
    for partial in folder.glob("step_*.partial"):
        shutil.rmtree(partial, ignore_errors=True)
    for replaced in folder.glob("step_*.replaced"):
        if replaced.with_suffix("").exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            replaced.rename(replaced.with_suffix(""))


def _drop_old(folder: Path, keep: int, *, last_good_step: int) -> None:
    """Spares the best, and the newest from before skipped steps: a rewind goes back to it."""
    folders = step_folders(folder)
    good = [each for each in folders if step_of(each) <= last_good_step]
    spared = {each.name for each in [*folders[-keep:], *good[-1:], (folder / BEST).resolve()]}
    for old in folders:
        if old.name not in spared:
            _delete(old)


def _delete(old: Path) -> None:
    (old / MARKER).unlink(missing_ok=True)  # a half-deleted folder must not look whole
    shutil.rmtree(old)
