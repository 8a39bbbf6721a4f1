"""The names among a run's checkpoints: folders by step, and `last` and `best`, which name one.

Nothing is taken on trust here: a folder that cannot be listed is not an empty one, and what a copy
made of a link still names its checkpoint.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from data_shards.errors import InputError
from data_shards.files.atomic import made_whole, remedy_of
from data_shards.files.regular import parse_json, read_regular

# Links among the checkpoints; what stands for the weights that a run began with, beside them.
LAST, BEST, UNTRAINED = "last", "best", "untrained"
# Written last into a checkpoint: the sha256 of each other file.
MARKER = "COMPLETE"
STATE_FILE = "state.json"
# What all step folders match, and what is being made or replaced under their names.
STEP_PATTERN = "step_*"
_STEP_FOLDER = re.compile(r"step_(\d{8})", re.ASCII)


def step_folder(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return checkpoints / f"step_{step:08d}"


def step_folders(checkpoints: Path) -> list[Path]:
    """The checkpoints by step, oldest first, intact or not; none where there is no folder.

    Raises InputError for one that is there and cannot be listed.
    """
    try:
        names = [each.name for each in checkpoints.iterdir()]
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not os.path.lexists(checkpoints):
            return []
        raise InputError(
            f"{checkpoints}: cannot be listed ({error.strerror}), so what is in it is not known: "
            f"{remedy_of(error)}"
        ) from error
    return sorted(checkpoints / name for name in names if is_step_name(name))


def is_step_name(name: str) -> bool:
    """Whether a checkpoint's folder may be called so."""
    return _STEP_FOLDER.fullmatch(name) is not None


def step_of(folder: Path) -> int:
    """The step that a checkpoint's folder is called by."""
    return int(folder.name.removeprefix("step_"))


def newest_complete_step(checkpoints: Path) -> int:
    """The step of the newest complete checkpoint, by its marker alone; 0 without one."""
    complete = [each for each in step_folders(checkpoints) if (each / MARKER).exists()]
    return step_of(complete[-1]) if complete else 0


def named_by(link: Path) -> Path | None:
    """The step folder that `last` or `best` names, there or not; None where it names none.

    Both are links to neighbours; copies make folders of them or text files that hold the target's
    name.
    """
    if link.is_symlink():
        name = link.readlink().name if _leads_beside(link) else ""
    elif link.is_dir():
        step = _step_within(link)
        return None if step is None else step_folder(link.parent, step)
    elif link.is_file():
        name = read_regular(link)[:100].decode(errors="replace").strip()
    else:
        return None
    return link.with_name(name) if is_step_name(name) else None


def refuse_stray(link: Path) -> None:
    """Raise InputError where `last` or `best` is a link to something else than a neighbour."""
    if link.is_symlink() and named_by(link) is None:
        raise InputError(
            f"{link}: leads to {link.readlink()}, which is no checkpoint of this run: point it at "
            "the name of a step folder beside it, or delete it"
        )


def _leads_beside(link: Path) -> bool:
    try:
        return (link.parent / link.readlink()).parent.resolve() == link.parent.resolve()
    except (OSError, RuntimeError):  # a parent that leads to itself: Python 3.13 says OSError
        return False


def point_link(link: Path, target: Path) -> None:
    """Make `link` a relative link to its neighbour `target`, atomically."""
    with made_whole(link, sync=False) as unfinished:
        unfinished.symlink_to(target.name)


def _step_within(folder: Path) -> int | None:
    try:
        step = parse_json(read_regular(folder / STATE_FILE))["state"]["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) and 0 <= step < 10**8 else None
