"""Checkpoints on disk: written atomically, checked before use, never unpickled.

    checkpoints/step_00001000/model.safetensors   weights and running statistics
                              optimizer.pt        tensors and numbers only (`weights_only`)
                              state.json          counters, scores, config, library versions
                              COMPLETE            written last: sha256 of each other file
    checkpoints/last, checkpoints/best            links to step folders

A folder is filled under another name and renamed when whole, so `step_...` never holds half
a checkpoint even if the machine dies.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from data_shards.records.errors import InputError

MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, MARKER = (
    "model.safetensors",
    "optimizer.pt",
    "state.json",
    "COMPLETE",
)


@dataclass
class TrainingState:
    """What decides the future besides weights, optimizer and config.

    `manifest_sha256` says which shards the run learns from. Dropout is seeded by (seed, step,
    rank) and the data by (seed, epoch, sample), so no generator state is among it.
    """

    step: int = 0
    samples_consumed: int = 0
    best_score: float | None = None
    stopping_reference: float | None = None
    validations_without_improvement: int = 0
    finished: bool = False
    manifest_sha256: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory, on the CPU."""

    state: TrainingState
    config: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Any]


class DamagedCheckpointError(InputError):
    """A checkpoint folder whose marker or checksums do not hold."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int, is_best: bool) -> Path:
    """Write `folder/step_<n>` atomically, point `last` (and `best`) at it, drop old ones.

    Keeps the newest `keep` and the best. Raises InputError for a full disk and the like, with the
    previous checkpoints untouched and nothing half-written left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step_{checkpoint.state.step:08d}"
    partial = final.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        # Through bytes: both libraries report a full disk as an error of their own otherwise.
        contiguous = {name: tensor.contiguous() for name, tensor in checkpoint.model.items()}
        (partial / MODEL_FILE).write_bytes(save(contiguous))
        buffer = io.BytesIO()
        torch.save(checkpoint.optimizer, buffer)
        (partial / OPTIMIZER_FILE).write_bytes(buffer.getbuffer())
        state = {
            "state": asdict(checkpoint.state),
            "config": checkpoint.config,
            "versions": {name: version(name) for name in ("torch", "transformers", "radalign")},
        }
        (partial / STATE_FILE).write_text(json.dumps(state, indent=1))
        digests = {name: _sha256(partial / name) for name in _CONTENT}
        (partial / MARKER).write_text(json.dumps(digests, indent=1))
        for name in (*_CONTENT, MARKER):
            _sync(partial / name)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    except OSError as error:
        raise InputError(
            f"{final}: not written ({error.strerror}): free some space, then the same command goes "
            "on from the previous checkpoint"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _sync(folder)
    point_link(folder / "last", final)
    if is_best:
        point_link(folder / "best", final)
    _drop_old(folder, keep)
    return final


def load_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in one step folder (or link). Raises DamagedCheckpointError, naming it."""
    check_intact(folder)
    document = json.loads((folder / STATE_FILE).read_text())
    return Checkpoint(
        state=TrainingState(**document["state"]),
        config=document["config"],
        model=load_file(folder / MODEL_FILE),
        optimizer=torch.load(folder / OPTIMIZER_FILE, weights_only=True, map_location="cpu"),
    )


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Only the model weights of one step folder (or link), after the same checks."""
    check_intact(folder)
    return load_file(folder / MODEL_FILE)


def find_latest_intact(folder: Path) -> tuple[Path | None, dict[Path, str]]:
    """The newest intact step folder, and for each newer, damaged one the complaint."""
    damaged = {}
    for candidate in sorted(folder.glob("step_" + "[0-9]" * 8), reverse=True):
        try:
            check_intact(candidate)
        except DamagedCheckpointError as error:
            damaged[candidate] = str(error)
        else:
            return candidate, damaged
    return None, damaged


def check_intact(folder: Path) -> None:
    """Raise DamagedCheckpointError unless the marker is there and every checksum holds."""
    marker = folder / MARKER
    if not marker.is_file():
        raise DamagedCheckpointError(f"checkpoint {folder}: no {MARKER} marker: not used")
    try:
        digests = json.loads(marker.read_text())
    except ValueError as error:
        raise DamagedCheckpointError(f"checkpoint {folder}: {MARKER} is damaged") from error
    for name in _CONTENT:
        path = folder / name
        if not path.is_file():
            raise DamagedCheckpointError(f"checkpoint {folder}: {name} is missing: not used")
        if digests.get(name) != _sha256(path):
            raise DamagedCheckpointError(
                f"checkpoint {folder}: {name} does not match its checksum: not used"
            )


def first_difference(old: Any, new: Any, path: str = "") -> str | None:
    """The dotted path of the first value in which two plain configs differ, or None."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            found = first_difference(old.get(key), new.get(key), f"{path}.{key}" if path else key)
            if found:
                return found
        return None
    return None if old == new else f"{path} ({old!r} then, {new!r} now)"


_CONTENT = (MODEL_FILE, OPTIMIZER_FILE, STATE_FILE)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _drop_old(folder: Path, keep: int) -> None:
    best = folder / "best"
    spared = best.resolve() if best.exists() else None
    for old in sorted(folder.glob("step_" + "[0-9]" * 8))[:-keep]:
        if old.resolve() != spared:
            (old / MARKER).unlink(missing_ok=True)  # a half-deleted folder must not look whole
            shutil.rmtree(old)
