"""Rows of Parquet, CSV, TSV and JSON-lines tables, the latter gzipped or not."""

from __future__ import annotations

import csv
import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

from data_shards.errors import InputError
from data_shards.sources.formats.cells import refuse_no_name_of_its_own, refuse_no_text, text_in
from data_shards.sources.formats.json_values import parse_json
from data_shards.sources.formats.parquet import read_parquet
from data_shards.sources.formats.table_files import open_table

# Of a cell: enough for any report, and a quote that is never closed ends here.
LONGEST_CELL = 10_000_000
_SHOWN_COLUMNS, _SHOWN_LETTERS = 20, 40
# Where a header is looked for below titles, comments and sep=.
_LINES_ABOVE = 20
_JSON = re.compile(r"""\s*([{]\s*"|\[\s*[{["])""")
_BEGINNING = 200


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table `path`, its cells by column; `line` is where it begins."""

    path: Path
    line: int
    cells: dict[str, Any]

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.path}: line {self.line}"

    def __getitem__(self, column: str) -> str:
        """A cell as text, empty where it says nothing. InputError for a list or a mapping."""
        return str(self._checked(column, text_in))

    def text(self, column: str) -> str:
        """A cell of text, which may be empty. InputError for numbers, lists and mappings."""
        self._checked(column, refuse_no_text)
        return self[column]

    def filled(self, column: str) -> str:
        """A cell that names something. InputError for an empty one, and for what is no name."""
        value = self[column]
        if not value:
            written = str(self.cells[column] or "").strip()
            shown = f" ({written!r})" if written else ""
            raise InputError(
                f"{self.where}: column {column!r} is empty{shown}: fill it in or remove the row"
            )
        self._checked(column, refuse_no_name_of_its_own)
        return value

    def _checked(self, column: str, check: Callable[[Any], Any]) -> Any:
        try:
            return check(self.cells[column])
        except ValueError as error:
            raise InputError(f"{self.where}: column {column!r} {error}") from error


def read_rows(path: Path, columns: Sequence[str], encoding: str | None = None) -> Iterator[Row]:
    """The rows of a table that must have `columns`.

    Rows without any cell are left out, and one may lack cells of columns without a name. The name
    decides the format: `.parquet`, `.tsv`, `.jsonl`, otherwise comma-separated, `.gz` after these
    or not. For `encoding` see `open_table`. Raises InputError, with the line, for a file that is
    absent, damaged or no table, for a row that lacks cells, for a column that is missing or there
    twice, and, at the end, for a table that has no row.
    """
    row = None
    for row in _rows(path, columns, encoding):
        yield row
    if row is None:
        raise InputError(f"{path}: no row below its header: fetch or write it again")


def _rows(path: Path, columns: Sequence[str], encoding: str | None) -> Iterator[Row]:
    if path.suffix.lower() == ".parquet":
        for number, cells in read_parquet(path, partial(_require_columns, path, 1, columns)):
            yield Row(path, number, cells)
        return
    kind = Path(path.name.removesuffix(".gz")).suffix.lower()
    with open_table(path, encoding) as file:
        if kind in (".jsonl", ".ndjson"):
            yield from _json_lines(path, file, columns)
        else:
            if _JSON.match(file.read(_BEGINNING)):
                raise InputError(f"{path}: JSON: name it .jsonl, and write one object a line")
            file.seek(0)
            yield from _delimited(path, file, columns, "\t" if kind == ".tsv" else ",")


def _delimited(path: Path, file: IO[str], columns: Sequence[str], delimiter: str) -> Iterator[Row]:
    lines = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=True)
    csv.field_size_limit(LONGEST_CELL)
    header: list[str] = []
    line = 1
    try:
        for cells in lines:
            if not any(map(str.strip, cells)):
                pass
            elif not header:
                header = [name.strip() for name in cells]
                below = ((lines.line_num, names) for names in lines)
                _require_columns(path, line, columns, header, below)
            elif any(map(str.strip, cells[len(header) :])):
                raise InputError(
                    f"{path}: line {line}: more cells than the header has columns: "
                    "quote texts that hold the delimiter"
                )
            elif any(header[len(cells) :]):
                raise InputError(
                    f"{path}: line {line}: {len(cells)} of {len(header)} cells: is the row cut? "
                    "Fetch or write the table again, with a delimiter for each empty cell"
                )
            else:
                cells += [""] * (len(header) - len(cells))
                yield Row(path, line, dict(zip(header, cells, strict=False)))
            line = lines.line_num + 1
    except csv.Error as error:
        # Only the reader's own words tell which of the two it is.
        if "limit" in str(error):
            what = f"a cell of more than {LONGEST_CELL:,} characters: is its quote closed?"
        else:
            what = f"a quote out of place ({error}): double the quotes inside a text, and close it"
        raise InputError(f"{path}: line {line}: {what}") from error
    if not header:
        raise InputError(f"{path}: an empty file: fetch or write it again")


def _json_lines(path: Path, file: IO[str], columns: Sequence[str]) -> Iterator[Row]:
    required = columns
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            value = parse_json(line)
        except ValueError as error:
            raise InputError(
                f"{path}: line {number}: not valid JSON ({error}): one object a line is read"
            ) from error
        if not isinstance(value, dict):
            raise InputError(f"{path}: line {number}: expected one JSON object a line")
        # Those of the first line: a later one may leave some out.
        _require_columns(path, number, required, tuple(value))
        required = ()
        yield Row(path, number, dict.fromkeys(columns, "") | value)
    if required:
        raise InputError(f"{path}: an empty file: fetch or write it again")


def _require_columns(
    path: Path,
    line: int,
    columns: Sequence[str],
    found: Sequence[str],
    below: Iterable[tuple[int, Sequence[str]]] = (),
) -> None:
    """Raise InputError unless `found`, in `line`, has each column once.

    `below` are the next rows and their lines, one of which may be the header.
    """
    if twice := [column for column in columns if found.count(column) > 1]:
        raise InputError(f"{path}: line {line}: column {twice[0]!r} is there twice: rename one")
    missing = [column for column in columns if column not in found]
    if not missing:
        return
    shown = ", ".join(repr(name[:_SHOWN_LETTERS]) for name in found[:_SHOWN_COLUMNS])
    more = f" and {len(found) - _SHOWN_COLUMNS} more" if len(found) > _SHOWN_COLUMNS else ""
    hint = ""
    composed = {unicodedata.normalize("NFC", name): name for name in found}
    lower = {unicodedata.normalize("NFKC", name).casefold(): name for name in reversed(found)}
    header = next(
        (n for n, row in islice(below, _LINES_ABOVE) if {*columns} <= {*map(str.strip, row)}), 0
    )
    if header:
        hint = f": line {header} has them: remove what stands above it"
    elif same := composed.get(unicodedata.normalize("NFC", missing[0])):
        hint = f": {same!r} is the same in another Unicode form (NFC, NFD): write both alike"
    elif near := difflib.get_close_matches(missing[0].casefold(), lower, n=1):
        hint = f": did you mean {lower[near[0]]!r}?"
    elif len(found) == 1 and (other := next((mark for mark in ";\t|," if mark in found[0]), "")):
        hint = f": are its cells separated by {other!r}? Commas are read, and tabs in .tsv"
    raise InputError(
        f"{path}: no column {', '.join(map(repr, missing))}: found {shown}{more}{hint}"
    )
