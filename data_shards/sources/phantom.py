"""The synthetic chest world: it draws an archive, which MIMIC-CXR's importer then reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_shards.errors import InputError
from data_shards.files.atomic import write_text_atomically
from data_shards.files.disk_space import refuse_full_disk
from data_shards.files.lock import locked
from data_shards.phantom.layouts.mimic_cxr import (
    MASKS_NAME,
    MS_CXR_NAME,
    REPORTS_NAME,
    ArchiveRows,
    write_study,
    write_tables,
)
from data_shards.phantom.study import PatientPlan, draw_patient, plan_patients
from data_shards.processes import Progress, Tick, available_cores, map_in_processes
from data_shards.profiles import Config
from data_shards.records.study import Split
from data_shards.sources.base import Source
from data_shards.sources.mimic_cxr import MimicCxrConfig, MimicCxrSource

LICENCE = "synthetic: no patient, no restriction"

# Part of what an archive must agree with: count it up when the drawing or the wording changes.
DRAWING_VERSION = 1

_SETTINGS_NAME = "phantom.json"
_COMPLETE_NAME = "COMPLETE"
_PARTS_NAME = "parts"
_LOCK_NAME = "drawing.lock"
_PATIENTS_PER_PART = 16


class PhantomConfig(Config):
    """What to draw, and the folder for the raw archive in MIMIC-CXR-JPG's layout.

    Patients have one to four studies, all in one split. Images are `image_size_px` high;
    frontals are square, laterals narrower. `noise` scales the usual quantum noise.
    """

    name: Literal["phantom"] = "phantom"
    archive: Path = Path("runs/phantom/archive")
    train_studies: int = Field(default=1200, ge=1)
    validate_studies: int = Field(default=100, ge=0)
    test_studies: int = Field(default=200, ge=0)
    image_size_px: int = Field(default=256, ge=64, le=2048)
    noise: float = Field(default=1.0, ge=0.0, le=10.0)
    seed: int = Field(default=0, ge=0)

    @property
    def studies_by_split(self) -> dict[Split, int]:
        """How many studies each split gets, exactly."""
        return {
            "train": self.train_studies,
            "validate": self.validate_studies,
            "test": self.test_studies,
        }


def open_phantom(config: PhantomConfig, *, workers: int | None = None) -> Source:
    """The studies of the phantom, drawn first where `config.archive` does not hold them yet.

    Drawing goes on where it stopped, gives the same bytes for any number of workers, and marks
    a finished archive by a file `COMPLETE`. Of several processes one draws and the others wait.
    Raises InputError when the folder holds something else or a phantom of other settings, and
    when the disk is full.
    """
    with (
        refuse_full_disk(config.archive, what="the phantom", option="source.archive"),
        _one_at_a_time(config.archive),
    ):
        if not is_drawn(config):
            draw_archive(config, workers=workers if workers is not None else available_cores())
    imported = MimicCxrConfig(
        root=config.archive,
        reports=config.archive / REPORTS_NAME,
        ms_cxr=config.archive / MS_CXR_NAME,
        masks=config.archive / MASKS_NAME,
        # The rules are for 54 real reports; a study here may have the id of one by chance.
        exceptions="keep",
    )
    return MimicCxrSource(imported, name="phantom", licence=LICENCE, edition=_settings_text(config))


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
    (config.archive / MASKS_NAME).mkdir(exist_ok=True)
    write_text_atomically(config.archive / _SETTINGS_NAME, _settings_text(config))
    plans = plan_patients(config.seed, config.studies_by_split)
    parts = [
        (number, plans[first : first + _PATIENTS_PER_PART])
        for number, first in enumerate(range(0, len(plans), _PATIENTS_PER_PART))
    ]
    missing = [part for part in parts if not _part_path(parts_folder, part[0]).is_file()]
    studies = sum(plan.studies for _, part in missing for plan in part)
    with Progress("drawing the phantom", total=studies, unit="studies") as progress:
        map_in_processes(_draw_part, config, missing, workers=workers, progress=progress)
    rows = ArchiveRows()
    for number, _ in parts:
        rows.extend(ArchiveRows(**json.loads(_part_path(parts_folder, number).read_bytes())))
    write_tables(config.archive, rows)
    write_text_atomically(config.archive / _COMPLETE_NAME, _settings_text(config))
    shutil.rmtree(parts_folder)


def _draw_part(config: PhantomConfig, part: tuple[int, Sequence[PatientPlan]], tick: Tick) -> None:
    """Draw some patients; their rows, written last, mark them as done."""
    number, plans = part
    rows = ArchiveRows()
    for plan in plans:
        for study in draw_patient(config.seed, plan):
            drawn = write_study(
                config.archive,
                study,
                seed=config.seed,
                height_px=config.image_size_px,
                noise=config.noise,
            )
            rows.extend(drawn)
            tick()
    path = _part_path(config.archive / _PARTS_NAME, number)
    write_text_atomically(path, json.dumps(rows.to_json()))


def _part_path(parts_folder: Path, number: int) -> Path:
    return parts_folder / f"{number:06}.json"


def _settings(config: PhantomConfig) -> dict[str, Any]:
    """What decides an archive's bytes."""
    return {
        "drawing_version": DRAWING_VERSION,
        **config.model_dump(mode="json", exclude={"name", "archive"}),
    }


def _settings_text(config: PhantomConfig) -> str:
    return json.dumps(_settings(config), indent=2) + "\n"


def _refuse_another_archive(config: PhantomConfig) -> None:
    """Never draw over files that this config did not make."""
    remedy = "set source.archive to another folder, or remove this one"
    if not config.archive.exists():
        return
    if not config.archive.is_dir():
        raise InputError(f"{config.archive}: not a folder: {remedy}")
    settings = config.archive / _SETTINGS_NAME
    if not settings.is_file():
        # The folders made just before the settings are written may be there.
        ours = {_LOCK_NAME, _PARTS_NAME, MASKS_NAME, f"{_SETTINGS_NAME}.partial"}
        strangers = sorted(path.name for path in config.archive.iterdir() if path.name not in ours)
        if strangers:
            raise InputError(f"{config.archive}: holds {strangers[0]!r}, not a phantom: {remedy}")
        return
    try:
        drawn = json.loads(settings.read_bytes())
    except ValueError as error:
        raise InputError(f"{settings}: not valid JSON ({error}): {remedy}") from error
    wanted = _settings(config)
    if drawn != wanted:
        found = drawn if isinstance(drawn, dict) else {}
        differing = [key for key in wanted if found.get(key) != wanted[key]]
        changes = ", ".join(f"{key}={found.get(key)!r}" for key in differing)
        raise InputError(f"{config.archive}: drawn with other settings ({changes}): {remedy}")
