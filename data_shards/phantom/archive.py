"""The synthetic chest world drawn as a raw archive, which an importer then reads."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_shards.errors import InputError
from data_shards.files.atomic import write_text_atomically
from data_shards.files.disk_space import refuse_full_disk
from data_shards.files.lock import locked
from data_shards.phantom.layouts.base import Rows
from data_shards.phantom.layouts.catalog import LAYOUTS
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
    with (
        refuse_full_disk(config.archive, what="the phantom", option="phantom.archive"),
        _one_at_a_time(config.archive),
    ):
        if not is_drawn(config):
            draw_archive(config, workers=workers)
    return _settings_text(config)


@contextmanager
def _one_at_a_time(archive: Path) -> Iterator[None]:
    """Keep others from drawing into `archive`; wait for one that does."""
    if (archive / _COMPLETE_NAME).is_file() or (archive.exists() and not archive.is_dir()):
        # Nothing to draw, or nowhere to, which is for `is_drawn` to say.
        yield
        return
    busy = f"another process is drawing {archive}: waiting for it"
    with locked(archive / _LOCK_NAME, busy=busy, wait=True):
        yield


def is_drawn(config: PhantomConfig) -> bool:
    """Whether the archive is there and finished. Raises InputError for one of other settings."""
    _refuse_another_archive(config)
    return (config.archive / _COMPLETE_NAME).is_file()


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
    rows = _joined(json.loads(path.read_bytes()) for path, _ in parts)
    LAYOUTS[config.layout].write_tables(config.archive, rows)
    write_text_atomically(config.archive / _COMPLETE_NAME, _settings_text(config))
    shutil.rmtree(parts_folder)


def _draw_part(config: PhantomConfig, part: tuple[Path, Sequence[PatientPlan]], tick: Tick) -> None:
    """Draw some patients; their rows, written last, mark them as done."""
    path, plans = part
    drawn: list[Rows] = []
    for plan in plans:
        for study in draw_patient(config.seed, plan):
            rows = LAYOUTS[config.layout].write_study(
                config.archive,
                study,
                seed=config.seed,
                height_px=config.image_size_px,
                noise=config.noise,
            )
            drawn.append(rows)
            tick()
    write_text_atomically(path, json.dumps(_joined(drawn)))


def _joined(parts: Iterable[Rows]) -> Rows:
    joined: defaultdict[str, list[list[Any]]] = defaultdict(list)
    for rows in parts:
        for table, more in rows.items():
            joined[table] += more
    return dict(joined)


def _settings(config: PhantomConfig) -> dict[str, Any]:
    """What decides an archive's bytes."""
    return {
        "drawing_version": DRAWING_VERSION,
        **config.model_dump(mode="json", exclude={"archive"}),
    }


def _settings_text(config: PhantomConfig) -> str:
    return json.dumps(_settings(config), indent=2) + "\n"


def _refuse_another_archive(config: PhantomConfig) -> None:
    """Never draw over files that this config did not make."""
    remedy = "set phantom.archive to another folder, or remove this one"
    if not config.archive.exists():
        return
    if not config.archive.is_dir():
        raise InputError(f"{config.archive}: not a folder: {remedy}")
    settings = config.archive / _SETTINGS_NAME
    if not settings.is_file():
        # Made just before the settings are written.
        ours = {_LOCK_NAME, _PARTS_NAME, f"{_SETTINGS_NAME}.partial"}
        strangers = sorted(path.name for path in config.archive.iterdir() if path.name not in ours)
        if strangers:
            raise InputError(f"{config.archive}: holds {strangers[0]!r}, not a phantom: {remedy}")
        return
    try:
        drawn = json.loads(settings.read_bytes())
    except ValueError as error:
        raise InputError(f"{settings}: not valid JSON ({error}): {remedy}") from error
    # Earlier releases drew one layout and did not say so.
    found = {"layout": "mimic_cxr", **(drawn if isinstance(drawn, dict) else {})}
    wanted = _settings(config)
    if found != wanted:
        differing = [key for key in wanted if found.get(key) != wanted[key]]
        changes = ", ".join(f"{key}={found.get(key)!r}" for key in differing)
        raise InputError(f"{config.archive}: drawn with other settings ({changes}): {remedy}")
