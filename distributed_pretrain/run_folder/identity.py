"""Which run a folder holds: drawn when the run begins, and repeated in each of its checkpoints.

identity.json    {"run": ..., "tokenizer": {file: sha256}, "has_saved": was there a checkpoint?}

With it a checkpoint of another run, a damaged tokenizer and lost checkpoints are noticed. Folders
of earlier releases get theirs when they are gone on with.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from dataclasses import dataclass
from typing import ClassVar
from uuid import uuid4

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import to_json

from data_shards.errors import InputError, warn
from data_shards.files.atomic import write_bytes_atomically
from data_shards.files.folders import what_is_no_folder
from data_shards.files.regular import read_regular
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.intact import Identity, sealed_states
from distributed_pretrain.run_folder.newest import NewestCheckpoint
from distributed_pretrain.run_folder.step_folders import LAST

_AGAIN = ", and the same `pretrain` command makes it again"
REMAKE = f"delete the folder{_AGAIN}"


@dataclass(frozen=True)
class _Kept(Identity):
    """What the folder itself keeps."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    has_saved: bool = False


_KEPT = TypeAdapter(_Kept)


def settle_identity(run: RunFolder, newest: NewestCheckpoint) -> None:
    """Give the folder an identity where it has none: that of its newest checkpoint, or a new one.

    Raises InputError where the run has saved checkpoints and none is left to go on from: progress
    is never begun anew unasked.
    """
    kept = _read(run) if run.has_progress else _Kept(run=uuid4().hex)
    saved = newest.checkpoint
    if kept is None:
        if os.path.lexists(run.identity):
            warn(f"{run.identity}: damaged, and made again from the run")
        its = Identity() if saved is None else saved.identity
        kept = _Kept(its.run or uuid4().hex, its.tokenizer, bool(run.read_metrics()))
    refuse_to_begin_anew(run, newest, has_saved=kept.has_saved)
    if saved is None or not saved.state.finished:  # a finished one may lie where nobody can write
        _write(run, dataclasses.replace(kept, has_saved=saved is not None))


def refuse_to_begin_anew(
    run: RunFolder, newest: NewestCheckpoint, *, has_saved: bool = False
) -> None:
    """Raise InputError where the run has saved checkpoints and none is left to go on from."""
    link = os.path.lexists(run.checkpoints / LAST)
    if newest.checkpoint is not None or not (has_saved or newest.damaged or link):
        return
    _refuse_foreign_identity(run)
    lines = run.read_metrics()
    reached = f" of {lines[-1]['step']} steps" if lines else ""
    first = f" ({next(iter(newest.damaged.values()))})" if newest.damaged else ""
    raise InputError(
        f"{run.path}: holds a run{reached}, but no checkpoint to go on from{first}: put "
        f"{run.checkpoints} back, or delete {run.path} if the run is to begin anew"
    )


def _refuse_foreign_identity(run: RunFolder) -> None:
    """Raise InputError where all checkpoints agree on another run than `identity.json` says."""
    own = identity_of(run)
    found = [each.identity for each in sealed_states(run.checkpoints)]
    if found and all(each == found[0] for each in found) and _differ(own, found[0]):
        raise InputError(
            f"{run.identity}: is of another run than all {len(found)} checkpoints beside it: if "
            f"it was copied here, delete it, and it is written again from them; if they were, put "
            "those of this run back"
        )


def _differ(one: Identity, other: Identity) -> bool:
    runs, tokenizers = (one.run, other.run), (one.tokenizer, other.tokenizer)
    return any(all(both) and both[0] != both[1] for both in (runs, tokenizers))


def note_saved(run: RunFolder) -> None:
    """Write down that the run has saved a checkpoint."""
    kept = _read(run)
    if kept is not None and not kept.has_saved:
        _write(run, dataclasses.replace(kept, has_saved=True))


def note_tokenizer(run: RunFolder) -> None:
    """Write down how the tokenizer is, which was just made or read.

    Raises InputError where another one is written down.
    """
    kept, found = _read(run), _digests(run)
    if kept is None or kept.tokenizer == found:
        return
    if kept.tokenizer:
        raise InputError(
            f"{run.tokenizer}: was made again, and is not what the run began with (other versions "
            "of libraries?): put that back, or choose another run_folder"
        )
    _write(run, dataclasses.replace(kept, tokenizer=found))


def identity_of(run: RunFolder) -> Identity:
    """The run's; empty in a folder of an earlier release."""
    return _plain(_read(run))


def check_tokenizer(run: RunFolder) -> None:
    """Raise InputError, naming the file, where the tokenizer is not as the run began with it.

    Where `identity.json` was lost, the newest checkpoint tells.
    """
    if what := what_is_no_folder(run.tokenizer):
        raise InputError(f"{run.tokenizer}: {what}, and should be a folder: move it away{_AGAIN}")
    wanted, found = identity_of(run).tokenizer, _digests(run)
    if found == wanted:
        return
    as_saved = next((each.identity.tokenizer for each in sealed_states(run.checkpoints)), {})
    wanted = wanted or as_saved
    if not wanted or found == wanted:
        return
    if found == as_saved:
        raise InputError(
            f"{run.identity}: is of another tokenizer than the run's and its newest checkpoint's: "
            "delete it, and the same `pretrain` command writes it again"
        )
    for name in sorted(wanted.keys() | found.keys()):
        if found.get(name) != wanted.get(name):
            what = "damaged" if name in found and name in wanted else "missing"
            if name not in wanted:
                what = "not of this tokenizer"
            raise InputError(f"{run.tokenizer / name}: {what}: {REMAKE}")


def _plain(kept: _Kept | None) -> Identity:
    return Identity() if kept is None else Identity(kept.run, kept.tokenizer)


def _digests(run: RunFolder) -> dict[str, str]:
    """The sha256 of each file of the tokenizer."""
    if not run.tokenizer.is_dir():
        return {}
    files = sorted(each for each in run.tokenizer.iterdir() if not each.is_dir())
    return {each.name: hashlib.sha256(read_regular(each)).hexdigest() for each in files}


def _read(run: RunFolder) -> _Kept | None:
    """None where it is missing or damaged."""
    try:
        return _KEPT.validate_json(read_regular(run.identity))
    except FileNotFoundError:
        return None
    except ValidationError:
        return None


def _write(run: RunFolder, kept: _Kept) -> None:
    if _read(run) != kept:
        write_bytes_atomically(run.identity, to_json(kept, indent=1) + b"\n")
