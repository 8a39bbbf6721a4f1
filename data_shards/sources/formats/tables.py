"""Rows of CSV, TSV and JSON-lines tables, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from data_shards.errors import InputError


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table `path`, its cells by column."""

    path: Path
    line: int
    cells: dict[str, str]

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.path}: line {self.line}"

    def __getitem__(self, column: str) -> str:
        return self.cells[column].strip()

    def filled(self, column: str) -> str:
        """A cell that must not be empty: raises InputError."""
        value = self[column]
        if not value:
            raise InputError(
                f"{self.where}: column {column!r} is empty: fill it in or remove the row"
            )
        return value


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a table that must have `columns`.

    Every value is text; a cell that is missing or null is empty. The name decides the format:
    `.tsv`, `.jsonl`, otherwise comma-separated; `.gz` after it is unpacked on the way. Raises
    InputError for a file that is absent, damaged or not UTF-8, and for a missing column.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such table: check the path in the profile")
    kind = Path(path.name.removesuffix(".gz")).suffix
    try:
        with _open_text(path) as file:
            if kind in (".jsonl", ".ndjson"):
                yield from _json_lines(path, file, columns)
            else:
                delimiter = "\t" if kind == ".tsv" else ","
                yield from _delimited(path, file, columns, delimiter)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(f"{path}: the gzip file is damaged ({error}): fetch it again") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}): convert the table") from error
    except csv.Error as error:
        raise InputError(f"{path}: not a readable table ({error})") from error


def _open_text(path: Path) -> IO[str]:
    # utf-8-sig: tables saved by spreadsheets start with a byte order mark.
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _delimited(path: Path, file: IO[str], columns: Sequence[str], delimiter: str) -> Iterator[Row]:
    reader = csv.DictReader(file, delimiter=delimiter, restval="", strict=True)
    _require_columns(path, columns, reader.fieldnames or ())
    for row in reader:
        if None in row:
            raise InputError(
                f"{path}: line {reader.line_num}: more cells than the header has columns: "
                "quote texts that hold the delimiter"
            )
        yield Row(path, reader.line_num, row)


def _json_lines(path: Path, file: IO[str], columns: Sequence[str]) -> Iterator[Row]:
    required = columns
    for line_number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: line {line_number}: not valid JSON ({error})") from error
        if not isinstance(value, dict):
            raise InputError(f"{path}: line {line_number}: expected one JSON object a line")
        row = {key: "" if each is None else str(each) for key, each in value.items()}
        # Those of the first line: a later one may leave some out.
        _require_columns(path, required, tuple(row))
        required = ()
        yield Row(path, line_number, dict.fromkeys(columns, "") | row)


def _require_columns(path: Path, columns: Sequence[str], found: Sequence[str]) -> None:
    missing = [column for column in columns if column not in found]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(map(repr, missing))}: found {', '.join(found)}"
        )
