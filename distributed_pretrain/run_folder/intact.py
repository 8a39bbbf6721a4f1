"""Whether a checkpoint is whole, says what it must, and is of this run.

Nothing here needs torch. `state.json` of a checkpoint holds the training state, the run's resolved
config and its identity, and versions of libraries.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, NonNegativeInt, PositiveFloat, TypeAdapter, ValidationError

from data_shards.errors import InputError
from data_shards.files.regular import parse_json, read_regular
from data_shards.profiles import Config, first_difference, validate
from data_shards.records.manifest import Manifest
from distributed_pretrain.run_folder.step_folders import (
    MARKER,
    STATE_FILE,
    is_step_name,
    step_folders,
    step_of,
)

MODEL_FILE, OPTIMIZER_FILE = "model.safetensors", "optimizer.safetensors"
OPTIMIZER_TREE_FILE = "optimizer.json"
_FILES = (MODEL_FILE, OPTIMIZER_FILE, OPTIMIZER_TREE_FILE, STATE_FILE)
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class StoredImages:
    """What a manifest says of its images, and whoever reads another one must know."""

    pixel_mean: float
    pixel_std: float
    longest_side_px: NonNegativeInt

    @classmethod
    def of(cls, manifest: Manifest) -> StoredImages:
        """Those of the shards."""
        return cls(manifest.pixel_mean, manifest.pixel_std, manifest.longest_side_px)


@dataclass
class TrainingState:
    """What decides the future besides weights, optimizer and config.

    `manifest_sha256` says which shards the run learns from, `stored_images` how their images are
    (None where an earlier release wrote). Dropout is seeded by (seed, step,
    rank) and the data by (seed, epoch, sample), so no generator state is among it.
    `skipped_steps` counts the batches left out for a non-finite loss or gradient,
    `consecutive_skips` those since the last update, and `rewinds` the returns to a checkpoint. Of
    fp16 `loss_scale` is the factor of losses, `loss_scale_updates` since when, and
    `overflowed_steps` those that were left out for its range, which are no skips.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    step: NonNegativeInt = 0
    samples_consumed: NonNegativeInt = 0
    best_score: float | None = None
    stopping_reference: float | None = None
    validations_without_improvement: NonNegativeInt = 0
    plateau_reference: float | None = None
    validations_on_plateau: NonNegativeInt = 0
    learning_rate_reductions: NonNegativeInt = 0
    finished: bool = False
    manifest_sha256: str = ""
    stored_images: StoredImages | None = None
    skipped_steps: NonNegativeInt = 0
    consecutive_skips: NonNegativeInt = 0
    rewinds: NonNegativeInt = 0
    loss_scale: PositiveFloat | None = None
    loss_scale_updates: NonNegativeInt = 0
    overflowed_steps: NonNegativeInt = 0


@dataclass(frozen=True)
class Identity:
    """Which run it is, in its folder and in every checkpoint: empty where an earlier release wrote.

    `run` is drawn when the run begins; `tokenizer` has the sha256 of each of its tokenizer's files.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    run: str = ""
    tokenizer: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Saved:
    """What `state.json` of a checkpoint says."""

    state: TrainingState
    config: dict[str, Any]
    identity: Identity = Identity()
    versions: dict[str, str] = field(default_factory=dict)


_SAVED = TypeAdapter(Saved)


@dataclass(frozen=True)
class Owner:
    """Whose checkpoints are wanted: a run of this config, and of this identity."""

    config: Config
    identity: Identity = Identity()

    def complaint(self, saved: Saved) -> str | None:
        """Why a checkpoint is not this run's; None where it is."""
        own, its = self.identity, saved.identity
        try:
            config = validate(type(self.config), saved.config, where="its config")
        except InputError as error:
            return f"of another run ({error})"
        if difference := first_difference(config.deciding(), self.config.deciding()):
            return f"of another run: {difference}"
        if own.run and its.run and own.run != its.run:
            return f"of another run of the same config ({its.run}; identity.json has {own.run})"
        if own.tokenizer and its.tokenizer and own.tokenizer != its.tokenizer:
            return "made with another tokenizer than identity.json says"
        return None


class DamagedCheckpointError(InputError):
    """A checkpoint folder that is damaged or another run's: `what` says how."""

    def __init__(self, folder: Path, what: str) -> None:
        super().__init__(f"checkpoint {folder}: {what}")


@dataclass(frozen=True)
class Sealed:
    """A checkpoint whose files are all there, each held against its checksum when it is read."""

    folder: Path
    digests: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Sealed:
        """Raises DamagedCheckpointError where the marker or a file is missing."""
        digests = _marker_of(folder)
        for name in _FILES:
            if not (folder / name).is_file():
                raise DamagedCheckpointError(folder, f"{name} is missing: not used")
        return cls(folder, digests)

    def read(self, name: str) -> bytes:
        """All of a file. Raises DamagedCheckpointError where it is not what was written."""
        try:
            content = read_regular(self.folder / name)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            what = f"{name} cannot be read ({error.strerror}): not used"
            raise DamagedCheckpointError(self.folder, what) from error
        if self.digests.get(name) != hashlib.sha256(content).hexdigest():
            what = f"{name} does not match its checksum: not used"
            raise DamagedCheckpointError(self.folder, what)
        return content

    def saved(self, owner: Owner | None = None) -> Saved:
        """What it says of itself. Raises DamagedCheckpointError, also where it is not `owner`'s."""
        saved = _parse_saved(self.folder, self.read(STATE_FILE))
        if owner is not None and (complaint := owner.complaint(saved)):
            raise DamagedCheckpointError(self.folder, f"{complaint}: not used")
        return saved


def sealed_states(checkpoints: Path, owner: Owner | None = None) -> Iterator[Saved]:
    """What the complete ones say of themselves, newest first; no tensor is read."""
    for folder in reversed(step_folders(checkpoints)):
        with suppress(DamagedCheckpointError):
            yield Sealed.open(folder).saved(owner)


def read_saved(folder: Path) -> Saved:
    """What a checkpoint says of itself, whole or not. Raises DamagedCheckpointError."""
    try:
        return _parse_saved(folder, read_regular(folder / STATE_FILE))
    except OSError as error:
        what = f"{STATE_FILE} cannot be read ({error.strerror}): not used"
        raise DamagedCheckpointError(folder, what) from error


def _parse_saved(folder: Path, content: bytes) -> Saved:
    try:
        saved = _SAVED.validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        what = f"{STATE_FILE} is damaged ({where}: {first['msg']}): not used"
        raise DamagedCheckpointError(folder, what) from error
    name, step = folder.resolve().name, saved.state.step
    if is_step_name(name) and step_of(Path(name)) != step:
        raise DamagedCheckpointError(folder, f"holds step {step} under the name {name}: not used")
    return saved


def _marker_of(folder: Path) -> dict[str, Any]:
    marker = folder / MARKER
    if not marker.is_file():
        raise DamagedCheckpointError(folder, f"no {MARKER} marker: not used")
    try:
        digests = parse_json(read_regular(marker))
    except ValueError:
        digests = None
    if not isinstance(digests, dict):
        raise DamagedCheckpointError(folder, f"{MARKER} is damaged: not used")
    return digests
