"""Rows of images grouped into studies, and what rows may not say of a study, patient or image."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, NoReturn, TypeAlias

from data_shards.errors import InputError
from data_shards.sources.image_row import ImageRow
from data_shards.sources.report_cells import Trace, read_report_cell, told

Conflicts: TypeAlias = Literal["stop", "first", "drop"]
# Patient and study.
Ids: TypeAlias = tuple[str, str]

_AS_FLOAT = re.compile(r"(\d+)[.,]0+")
_IN_THOUSANDS = re.compile(r"\d{1,3}(?:[,'\u2019 ]\d{3})+")
# What spreadsheets make of 1-5 and of May 20.
_AS_DATE = re.compile(r"\d{1,2}-[A-Z][a-z]{2}|[A-Z][a-z]{2}-\d{2}")
# A text that is cut ends within a sentence; these two fill what Excel and MySQL hold.
_ENDED = re.compile(r"[.?!:_*)\]\u3002]\s*\Z")
_SHORTEST_CUT, _FULL = 100, (32_767, 65_535)


@dataclass(frozen=True, slots=True)
class GroupingRules:
    """The source's settings and properties that decide on rows; see `SourceConfig` and `Source`.

    `where` says the file and line of a row.
    """

    where: Callable[[ImageRow], str]
    conflicts: Conflicts
    bad_reports: Literal["stop", "drop"]
    study_ids_are_unique: bool
    narrowed_by: str


@dataclass
class Studies:
    """The rows of each study, the first with all that its report is, by the ids.

    `contradictory` are those whose rows contradict each other, where these are to be dropped.
    """

    rows: dict[Ids, list[ImageRow]] = field(default_factory=dict)
    contradictory: set[Ids] = field(default_factory=set)
    warnings: tuple[str, ...] = ()


def group_rows(rows: Iterable[ImageRow], rules: GroupingRules) -> Studies:
    """The studies of `rows`. Raises InputError, with the line, for what `Source` says."""
    grouping = _Grouping(rules)
    for row in rows:
        grouping.add(row)
    return grouping.done()


def no_report(where: str, image_id: str) -> InputError:
    """The refusal of a study without a report, whose first image a table names at `where`."""
    return InputError(
        f"{where}: image {image_id} has no report (empty, or a word for nothing such as nan): add "
        "it or set source.bad_reports=drop"
    )


class _Grouping:
    def __init__(self, rules: GroupingRules) -> None:
        self.rules = rules
        self.studies = Studies()
        self.texts: dict[Ids, dict[str, str]] = {}
        self.row_of_image: dict[str, ImageRow] = {}
        self.first_of_study_id: dict[str, ImageRow] = {}
        self.first_of_patient: dict[str, ImageRow] = {}
        self.spellings: dict[Ids, ImageRow] = {}
        self.twins: dict[str, tuple[ImageRow, ImageRow]] = {}
        # By what it is: how many there are, and where the first stands.
        self.differing: Counter[str] = Counter()
        self.traces: Counter[Trace] = Counter()
        self.longest = _Longest()
        self.dates: dict[str, str] = {}
        self.first_place: dict[str, str] = {}

    def add(self, row: ImageRow) -> None:
        ids = (row.patient_id, row.study_id)
        self._look_at_spelling("", row, row.patient_id)
        self._look_at_spelling(row.patient_id, row, row.study_id)
        for name in filter(_AS_DATE.fullmatch, ids):
            self.dates.setdefault(name, row.place)
        other = self.row_of_image.setdefault(row.image_id, row)
        if other is not row:
            place = other.place_beside(row)
            said = f"image {row.image_id} is also in {place}: duplicate ids: remove one"
            same = replace(row, line=other.line, table=other.table) == other
            self._contradiction("image", row, said, () if same else (ids, _ids(other)))
            return
        here = self.studies.rows.setdefault(ids, [])
        here.append(row)
        self._refuse_two_splits(row, here[0])
        self._refuse_two_patients(row)
        self._merge_texts(row, here[0])
        if row.labels != here[0].labels:
            self._differ("label", row, here[0])

    def done(self) -> Studies:
        for ids, texts in self.texts.items():
            first = self.studies.rows[ids][0]
            self.studies.rows[ids][0] = replace(first, texts=texts)
            if self.rules.bad_reports == "stop" and not any(texts.values()):
                raise no_report(self.rules.where(first), first.image_id)
        self.studies.warnings = (
            *self._told_twins(),
            *self._told_dates(),
            *self._told_conflicts(),
            *self.longest.told(),
            *(told(trace, count, self.first_place[trace]) for trace, count in self.traces.items()),
        )
        return self.studies

    def _refuse_two_splits(self, row: ImageRow, first_of_study: ImageRow) -> None:
        first = self.first_of_patient.setdefault(row.patient_id, row)
        if first.split == row.split:
            return
        if first_of_study.split != row.split:
            before = first_of_study.split or "none"
            self._refuse(
                row,
                f"study {row.study_id} of patient {row.patient_id} is in another split "
                f"({row.split}) than in {first_of_study.place_beside(row)} ({before}): "
                "give all its rows one split",
            )
        self._refuse(
            row,
            f"patient {row.patient_id} is in two splits (study {first.study_id} in {first.split}, "
            f"study {row.study_id} in {row.split}): give all studies of a patient one split",
        )

    def _refuse_two_patients(self, row: ImageRow) -> None:
        first = self.first_of_study_id.setdefault(row.study_id, row)
        if self.rules.study_ids_are_unique and first.patient_id != row.patient_id:
            self._refuse(
                row,
                f"study {row.study_id} is of patient {row.patient_id}, and in "
                f"{first.place_beside(row)} of patient {first.patient_id}: correct one of them",
            )

    def _merge_texts(self, row: ImageRow, first: ImageRow) -> None:
        """An empty cell is no other report; nor are other blanks."""
        if row.texts is None:
            return
        known = self.texts.setdefault(_ids(row), dict.fromkeys(row.texts, ""))
        cells = {name: read_report_cell(raw) for name, raw in row.texts.items()}
        for raw in row.texts.values():
            self.longest.look_at(raw, row)
        others = [
            name
            for name, (text, _) in cells.items()
            if text and known[name] and text.split() != known[name].split()
        ]
        if others:
            # None of its texts belongs to those of the first row.
            part = "" if others[0] == "report" else f" ({others[0]})"
            self._differ(f"report{part}", row, first)
        else:
            known.update({name: known[name] or text for name, (text, _) in cells.items()})
        traces = set[Trace]().union(*(found for _, found in cells.values()))
        for trace in traces:
            self.traces[trace] += 1
            self.first_place.setdefault(trace, row.place)

    def _differ(self, what: str, row: ImageRow, first: ImageRow) -> None:
        said = f"study {row.study_id} of patient {row.patient_id} has another {what} than in"
        said = f"{said} {first.place_beside(row)}: give it an id of its own or make them equal"
        self._contradiction(what, row, said, [_ids(row)])

    def _contradiction(self, what: str, row: ImageRow, said: str, studies: Iterable[Ids]) -> None:
        if self.rules.conflicts == "stop":
            self._refuse(
                row,
                f"{said}{self.rules.narrowed_by}, or set source.conflicts=first (the first row "
                "holds) or drop (the study is left out)",
            )
        if self.rules.conflicts == "drop":
            self.studies.contradictory.update(studies)
        self.differing[what] += 1
        self.first_place.setdefault(f"differing {what}", row.place)

    def _look_at_spelling(self, within: str, row: ImageRow, name: str) -> None:
        """Note that one thing may have two names: Excel drops zeros, pandas writes 7 as 7.0."""
        first = self.spellings.setdefault((within, folded(name)), row)
        other = first.study_id if within else first.patient_id
        if other == name:
            return
        what = "study" if within else "patient"
        for one, two in ((name, other), (other, name)):
            number = _AS_FLOAT.fullmatch(one)
            if number and number[1] == two:
                said = f"{what} {name!r} is {other!r} in {first.place_beside(row)}"
                self._refuse(row, f"{said}: write one id for one {what}")
        if not within:
            self.twins.setdefault(name, (first, row))

    def _refuse(self, row: ImageRow, said: str) -> NoReturn:
        raise InputError(f"{self.rules.where(row)}: {said}")

    def _told_twins(self) -> Iterator[str]:
        if self.twins:
            first, row = next(iter(self.twins.values()))
            yield (
                f"{len(self.twins):,} x a patient whose id differs from another's in case, leading "
                "zeros, marks of thousands, width, quotes, blanks or Unicode form alone (first: "
                f"{row.patient_id!r} in {row.place}, {first.patient_id!r} in "
                f"{first.place_beside(row)}): if they are the same, write one id, or they may be "
                "in two splits"
            )

    def _told_dates(self) -> Iterator[str]:
        if self.dates:
            name, place = next(iter(self.dates.items()))
            yield (
                f"{len(self.dates):,} x an id that reads like a date (first: {name!r} in "
                f"{place}): a spreadsheet writes 1-5 so: look whether they are the ids"
            )

    def _told_conflicts(self) -> Iterator[str]:
        done = {"first": "the first row holds", "drop": "its study is left out"}
        for what, count in self.differing.items():
            said = "that repeats an image"
            if what != "image":
                said = f"with another {what} than its study has"
            place = self.first_place[f"differing {what}"]
            yield (
                f"{count:,} x a row {said} (first: {place}): {done[self.rules.conflicts]}, as "
                f"source.conflicts={self.rules.conflicts} says"
            )


@dataclass
class _Longest:
    """The longest texts, which another program may have cut."""

    letters: int = _SHORTEST_CUT
    texts: dict[str, str] = field(default_factory=dict)

    def look_at(self, text: str, row: ImageRow) -> None:
        if len(text) > self.letters:
            self.letters, self.texts = len(text), {}
        if len(text) == self.letters:
            self.texts.setdefault(text, row.place)

    def told(self) -> Iterator[str]:
        several = len(self.texts) > 1 or self.letters in _FULL
        if several and not any(map(_ENDED.search, self.texts)):
            yield (
                f"{len(self.texts):,} x a report of {self.letters:,} characters, the most there "
                f"are, that ends within a sentence (first: {next(iter(self.texts.values()))}): if "
                "another program cut them, take them anew from where they came from"
            )


def _ids(row: ImageRow) -> Ids:
    return row.patient_id, row.study_id


def folded(name: str) -> str:
    """What spellings of one id have in common."""
    plain = " ".join(unicodedata.normalize("NFKC", name).casefold().strip("'\"`´‘’+").split())
    if _IN_THOUSANDS.fullmatch(plain):
        plain = "".join(filter(str.isdecimal, plain))
    number = _AS_FLOAT.fullmatch(plain)
    plain = number[1] if number else plain
    if plain.isdecimal():
        plain = "".join(str(unicodedata.decimal(digit)) for digit in plain).lstrip("0") or "0"
    return plain
