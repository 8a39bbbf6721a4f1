"""The synthetic chest world drawn as a raw archive, which an importer then reads."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from data_shards.errors import InputError
from data_shards.files.atomic import refuse_full_disk, write_text_atomically
from data_shards.files.lock import locked
from data_shards.files.regular import parse_json, read_document
from data_shards.phantom.layouts.catalog import layout_of
from data_shards.phantom.layouts.drawn import Rows
from data_shards.phantom.settings import PhantomConfig
from data_shards.phantom.study import PatientPlan, draw_patient, plan_patients
from data_shards.processes import Progress, Tick, map_in_processes

# Part of what an archive must agree with: count it up when the drawing or the wording changes.
DRAWING_VERSION = 1

_SETTINGS_NAME = "phantom.json"
_COMPLETE_NAME = "COMPLETE"
_PARTS_NAME = "parts"
_LOCK_NAME = "drawing.lock"
_PATIENTS_PER_PART = 16


def draw_if_absent(config: PhantomConfig, *, workers: int) -> str:
    """What decides the archive's bytes, in words; it is drawn if it is not there.

    Drawing goes on where it stopped, gives the same bytes for any number of workers, and marks
    a finished archive by a file `COMPLETE`. Of several processes one draws and the others wait.
    Raises InputError when the folder holds something else or a phantom of other settings, and
    when the disk is full.
    """
    archive = config.archive
    busy = f"another process is drawing {archive}: waiting for it"
    with refuse_full_disk(archive, what="the phantom", option="phantom.archive"):
        if not is_drawn(config):
            with locked(archive / _LOCK_NAME, busy=busy, wait=True):
                # The other may have finished it meanwhile.
                if not is_drawn(config):
                    draw_archive(config, workers=workers)
    return _settings_text(config)


def is_drawn(config: PhantomConfig) -> bool:
    """Whether the archive is there and finished.

    Raises InputError for files that this config did not make: they are never drawn over.
    """
    archive, wanted = config.archive, json.loads(_settings_text(config))
    remedy = "set phantom.archive to another folder, or remove this one"
    if archive.exists() and not archive.is_dir():
        raise InputError(f"{archive}: not a folder: {remedy}")
    try:
        drawn = parse_json(read_document(archive / _SETTINGS_NAME))
    except FileNotFoundError:
        # Made just before the settings are written.
        ours = {_LOCK_NAME, _PARTS_NAME, f"{_SETTINGS_NAME}.partial"}
        strangers = sorted({path.name for path in archive.glob("*")} - ours)
        if strangers:
            raise InputError(
                f"{archive}: holds {strangers[0]!r}, not a phantom: {remedy}"
            ) from None
        return False
    except ValueError as error:
        raise InputError(
            f"{archive / _SETTINGS_NAME}: not valid JSON ({error}): {remedy}"
        ) from error
    # What earlier releases did not say is what they had no choice of.
    usual = PhantomConfig().model_dump(mode="json", include={"layout", "world"})
    found = {**usual, **(drawn if isinstance(drawn, dict) else {})}
    if found != wanted:
        changes = (f"{k}={found.get(k)!r}" for k in wanted if found.get(k) != wanted[k])
        raise InputError(f"{archive}: drawn with other settings ({', '.join(changes)}): {remedy}")
    return (archive / _COMPLETE_NAME).is_file()


def _read_part(path: Path) -> Any:
    try:
        return parse_json(read_document(path))
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}): delete it, and it is drawn again") from error


def draw_archive(config: PhantomConfig, *, workers: int) -> None:
    """Draw what is not drawn yet, write the tables, and mark the archive as complete."""
    parts_folder = config.archive / _PARTS_NAME
    parts_folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(config.archive / _SETTINGS_NAME, _settings_text(config))
    plans = plan_patients(config.seed, config.studies_by_split)
    parts = [
        (parts_folder / f"{number:06}.json", plans[first : first + _PATIENTS_PER_PART])
        for number, first in enumerate(range(0, len(plans), _PATIENTS_PER_PART))
    ]
    missing = [part for part in parts if not part[0].is_file()]
    studies = sum(plan.studies for _, part in missing for plan in part)
    with Progress("drawing the phantom", total=studies, unit="studies") as progress:
        map_in_processes(_draw_part, config, missing, workers=workers, progress=progress)
    rows = _joined(_read_part(path) for path, _ in parts)
    layout_of(config.layout).write_tables(config, rows)
    write_text_atomically(config.archive / _COMPLETE_NAME, _settings_text(config))
    shutil.rmtree(parts_folder)


def _draw_part(config: PhantomConfig, part: tuple[Path, Sequence[PatientPlan]], tick: Tick) -> None:
    """Draw some patients; their rows, written last, mark them as done."""
    path, plans = part
    layout = layout_of(config.layout)
    drawn: list[Rows] = []
    for study in chain.from_iterable(
        draw_patient(config.seed, plan, config.world) for plan in plans
    ):
        drawn.append(layout.write_study(config, study))
        tick()
    write_text_atomically(path, json.dumps(_joined(drawn)))


def _joined(parts: Iterable[Rows]) -> Rows:
    joined: Rows = defaultdict(list)
    for table, more in chain.from_iterable(rows.items() for rows in parts):
        joined[table] += more
    return joined


def _settings_text(config: PhantomConfig) -> str:
    """What decides an archive's bytes."""
    settings = config.model_dump(mode="json", exclude={"archive"})
    return json.dumps({"drawing_version": DRAWING_VERSION, **settings}, indent=2) + "\n"
