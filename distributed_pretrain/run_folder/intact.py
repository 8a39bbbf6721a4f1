"""Whether a checkpoint is whole, says what it must, and is of this run; and the newest that is.

Nothing here needs torch. `state.json` of a checkpoint holds the training state, the run's resolved
config and its identity, and versions of libraries.
"""

from __future__ import annotations

import errno
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, NonNegativeInt, TypeAdapter, ValidationError

from data_shards.errors import InputError
from data_shards.files.regular import open_regular, parse_json, read_regular
from data_shards.profiles import Config, first_difference, validate
from distributed_pretrain.run_folder.step_folders import (
    MARKER,
    STATE_FILE,
    is_step_name,
    step_folders,
    step_of,
)

MODEL_FILE, OPTIMIZER_FILE = "model.safetensors", "optimizer.safetensors"
OPTIMIZER_TREE_FILE = "optimizer.json"
_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass
class TrainingState:
    """What decides the future besides weights, optimizer and config.

    `manifest_sha256` says which shards the run learns from. Dropout is seeded by (seed, step,
    rank) and the data by (seed, epoch, sample), so no generator state is among it.
    `skipped_steps` counts the batches left out for a non-finite loss or gradient,
    `consecutive_skips` those since the last update, and `rewinds` the returns to a checkpoint.
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
    skipped_steps: NonNegativeInt = 0
    consecutive_skips: NonNegativeInt = 0
    rewinds: NonNegativeInt = 0


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


def check_intact(folder: Path, owner: Owner | None = None) -> Saved:
    """What a checkpoint says of itself, when the marker is there and every checksum holds.

    Raises DamagedCheckpointError otherwise, and for one that is not `owner`'s.
    """
    digests = _marker_of(folder)
    for name in (MODEL_FILE, OPTIMIZER_FILE, OPTIMIZER_TREE_FILE, STATE_FILE):
        if not (folder / name).is_file():
            raise DamagedCheckpointError(folder, f"{name} is missing: not used")
        if digests.get(name) != _sha256(folder, name):
            raise DamagedCheckpointError(folder, f"{name} does not match its checksum: not used")
    saved = read_saved(folder)
    if owner is not None and (complaint := owner.complaint(saved)):
        raise DamagedCheckpointError(folder, f"{complaint}: not used")
    return saved


def read_saved(folder: Path) -> Saved:
    """What a checkpoint says of itself, whole or not. Raises DamagedCheckpointError."""
    try:
        saved = _SAVED.validate_json(read_regular(folder / STATE_FILE))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        what = f"{STATE_FILE} is damaged ({where}: {first['msg']}): not used"
        raise DamagedCheckpointError(folder, what) from error
    except OSError as error:
        what = f"{STATE_FILE} cannot be read ({error.strerror}): not used"
        raise DamagedCheckpointError(folder, what) from error
    name, step = folder.resolve().name, saved.state.step
    if is_step_name(name) and step_of(Path(name)) != step:
        raise DamagedCheckpointError(folder, f"holds step {step} under the name {name}: not used")
    return saved


def find_latest_intact(
    folder: Path, *, until_step: int | None = None, owner: Owner | None = None
) -> tuple[Path | None, dict[Path, str]]:
    """The newest intact step folder (of at most `until_step`), and complaints about newer ones.

    One that is not `owner`'s counts as damaged.
    """
    damaged = {}
    for candidate in reversed(step_folders(folder)):
        if until_step is None or step_of(candidate) <= until_step:
            try:
                check_intact(candidate, owner)
            except DamagedCheckpointError as error:
                damaged[candidate] = str(error)
            else:
                return candidate, damaged
    return None, damaged


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


def _sha256(folder: Path, name: str) -> str:
    try:
        with open_regular(folder / name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        what = f"{name} cannot be read ({error.strerror}): not used"
        raise DamagedCheckpointError(folder, what) from error
