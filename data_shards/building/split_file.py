"""Splits by lists of people's own: tables that say which study or patient is in which split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field, model_validator

from data_shards.errors import InputError
from data_shards.profiles import Config
from data_shards.records.manifest import file_sha256
from data_shards.records.study import SPLITS, Split
from data_shards.sources.base import Source, StudyRef
from data_shards.sources.formats.tables import Row, read_rows
from data_shards.sources.values import split_in


class SplitFile(Config):
    """Lists that stand in place of what the source says and of any draw.

    Either one `table` with a column of splits, or `lists`: a table for each split, as LoVT's
    authors publish theirs. The column `ids` names studies, or images of these, or, with
    `of=patients`, patients; other columns are not read. A study that no list names stops the
    build, or is left out and counted.
    """

    table: Path | None = None
    lists: dict[Split, Path] = Field(default_factory=dict)
    ids: str = "ID"
    split: str = "split"
    of: Literal["studies", "patients"] = "studies"
    unlisted: Literal["stop", "drop"] = "stop"

    @model_validator(mode="after")
    def _are_one_kind(self) -> SplitFile:
        if (self.table is None) != bool(self.lists):
            raise ValueError(
                "name either split_file.table, with a column of splits, or "
                "split_file.lists.train, .validate and .test"
            )
        return self

    @property
    def tables(self) -> tuple[Path, ...]:
        """All of them."""
        return (self.table,) if self.table is not None else tuple(self.lists.values())

    def digest(self) -> str:
        """Of what they say: other lists give other shards."""
        return hashlib.sha256("".join(map(file_sha256, self.tables)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ListedSplits:
    """The split of each patient, the studies that no list names, and what is to be told."""

    by_patient: dict[str, Split]
    unlisted: frozenset[StudyRef]
    warnings: tuple[str, ...]


def listed_splits(config: SplitFile, source: Source) -> ListedSplits:
    """What the lists say of the studies of `source`.

    Raises InputError, with the line, for an id in two splits or of two patients, and for lists
    that put studies of one patient into two splits; and where no id is one of the source's, or a
    study is in no list, if that is to stop the build.
    """
    listed = _listed(config)
    named: dict[str, str] = {}
    placed: dict[str, tuple[Split, str]] = {}
    unlisted: set[StudyRef] = set()
    for ref in source.list_studies():
        names = [each for each in _names(config, source, ref) if each in listed]
        if not names:
            unlisted.add(ref)
        for name in names:
            split, where = listed[name]
            if (other := named.setdefault(name, ref.patient_id)) != ref.patient_id:
                raise InputError(
                    f"{where}: {name!r} is the id of something of patients {other} and "
                    f"{ref.patient_id}: list ids that only one has, or set split_file.of=patients"
                )
            before = placed.setdefault(ref.patient_id, (split, where))
            if before[0] != split:
                raise InputError(
                    f"{where}: {name!r} is in {split!r}, but {before[1]} puts patient "
                    f"{ref.patient_id} into {before[0]!r}: a patient is in one split: correct one"
                )
    if not placed:
        first = next(iter(listed), "none")
        raise InputError(
            f"{config.tables[0]}: none of its {len(listed):,} ids ({first!r} ...) is one of the "
            f"source's {config.of}: check split_file.ids and split_file.of"
        )
    _refuse_unlisted(config, unlisted, of=len(source.list_studies()))
    strange = len(listed.keys() - named.keys())
    told = f"{strange:,} of {len(listed):,} ids of split_file name nothing in the source"
    return ListedSplits(
        {patient: split for patient, (split, _) in placed.items()},
        frozenset(unlisted),
        (told,) if strange else (),
    )


def _listed(config: SplitFile) -> dict[str, tuple[Split, str]]:
    """The split of each id, and the line that says so."""
    listed: dict[str, tuple[Split, str]] = {}
    for split, row in _rows(config):
        name = row.filled(config.ids)
        before = listed.setdefault(name, (split, row.where))
        if before[0] != split:
            raise InputError(
                f"{row.where}: {name!r} is in {split!r}, but in {before[0]!r} by {before[1]}: "
                "remove one of the lines"
            )
    return listed


def _rows(config: SplitFile) -> Iterator[tuple[Split, Row]]:
    if config.table is not None:
        for row in read_rows(config.table, (config.ids, config.split)):
            yield split_in(row, config.split), row
    for split in SPLITS:
        if split in config.lists:
            for row in read_rows(config.lists[split], (config.ids,)):
                yield split, row


def _names(config: SplitFile, source: Source, ref: StudyRef) -> tuple[str, ...]:
    """What a list may call a study: its patient; or its id or those of its images.

    An image may be listed with its suffix or without: some sets take it for part of the id.
    """
    if config.of == "patients":
        return (ref.patient_id,)
    names = {ref.study_id}
    for row in source.studies[ref]:
        name = PurePosixPath(row.path).name
        names |= {row.image_id, name, PurePosixPath(name).stem}
    return tuple(sorted(names))


def _refuse_unlisted(config: SplitFile, unlisted: set[StudyRef], *, of: int) -> None:
    if unlisted and config.unlisted == "stop":
        first = min(unlisted)
        raise InputError(
            f"{config.tables[0]}: {len(unlisted):,} of {of:,} studies are in no list (first: "
            f"study {first.study_id} of patient {first.patient_id}): add them, or leave them out "
            "by split_file.unlisted=drop"
        )
