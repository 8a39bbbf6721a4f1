"""The tasks of a sweep: every combination of what its words leave open."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from data_shards.errors import InputError
from data_shards.written import as_override, read_yaml

LONGEST_NAME = 120
# What the profile or run folder of a command is called in a table.
SUBJECT = "of"
_OPENING, _CLOSING = "[{(", "]})"
_QUOTED_OR_LETTER = re.compile(r"""'[^']*'?|"[^"]*"?|.""", re.DOTALL)
# A run folder may have a = in its name, but comes with its path.
_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")


@dataclass(frozen=True)
class Point:
    """One task: the words of its command, and the values that tell it from the others."""

    words: tuple[str, ...]
    values: dict[str, str]

    @property
    def name(self) -> str:
        """A folder's name made of the values; long ones end in a hash."""
        shown = [
            Path(value).name.removesuffix(".yaml") if key == SUBJECT else f"{key}={value}"
            for key, value in self.values.items()
        ]
        name = re.sub(r"[^A-Za-z0-9_.,=+-]+", "-", "__".join(shown)).strip("-") or "only"
        if len(name) <= LONGEST_NAME:
            return name
        whole = repr(sorted(self.values.items()))
        return f"{name[: LONGEST_NAME - 9]}-{sha256(whole.encode()).hexdigest()[:8]}"


def read_points(
    words: Sequence[str], *, rows: Sequence[dict[str, str]] = (), parts: int | None = None
) -> list[Point]:
    """The grid of `words`, times `rows`, each a set of overrides that belong together.

    In `key=a,b` and `PROFILE_1.yaml,PROFILE_2.yaml`, commas outside brackets and quotes separate
    values, and `'runs/seeds/*'` is each path of that pattern; the last key varies fastest. `{i}`
    and `{n}` in a word stand for 1..`parts` and `parts`. Raises InputError for two tasks of the
    same name, a pattern that nothing matches, and braces without `parts`.
    """
    axes = [_axis(word) for word in words]
    axes.append([(dict(row), tuple(map("=".join, row.items()))) for row in rows or [{}]])
    if any("{i}" in word for word in words) != (parts is not None):
        raise InputError("{i} and {n} in a command go with --parts N, and --parts with {i}/{n}")
    points: list[Point] = []
    for choice in itertools.product(*axes):
        values = {key: value for each, _ in choice for key, value in each.items()}
        said = tuple(word for _, chosen in choice for word in chosen)
        if parts is None:
            points.append(Point(said, values))
        for part in range(1, (parts or 0) + 1):
            own = [word.replace("{i}", str(part)).replace("{n}", str(parts)) for word in said]
            points.append(Point(tuple(own), values | {"part": f"{part}-of-{parts}"}))
    seen: dict[str, Point] = {}
    for point in points:
        if (twin := seen.setdefault(point.name, point)) is not point:
            raise InputError(
                f"two tasks would be called {point.name}: {' '.join(twin.words)} and "
                f"{' '.join(point.words)}: give a value once, and profiles different names"
            )
    return points


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with dotted keys in its first line, or of a YAML list of mappings.

    Raises InputError for anything else.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file: expected CSV or YAML") from error
    if path.suffix == ".csv":
        try:
            header, *cells = csv.reader(text.splitlines(), skipinitialspace=True) if text else [[]]
        except csv.Error as error:
            raise InputError(f"{path}: not CSV ({error})") from error
        cells = [each for each in cells if each]
        if not cells or any(len(each) != len(header) for each in cells):
            raise InputError(f"{path}: a first line of keys, then as many values in every line")
        if twice := [key for key in header if header.count(key) > 1]:
            raise InputError(f"{path}: line 1: {twice[0]!r} is there twice: keep one")
        return [dict(zip(header, each, strict=True)) for each in cells]
    try:
        values = read_yaml(text)
    except ValueError as error:
        raise InputError(f"{path}: not YAML: {error}") from error
    if not (values and isinstance(values, list) and all(isinstance(row, dict) for row in values)):
        raise InputError(f"{path}: expected a list of mappings, `- {{seed: 1, data.views: ...}}`")
    return [{str(key): as_override(value) for key, value in row.items()} for row in values]


def _axis(word: str) -> list[tuple[dict[str, str], tuple[str, ...]]]:
    """What one word may be: the values to tell it by, and the word itself."""
    if _OVERRIDE.match(word):
        key, value = word.split("=", 1)
        choices = [(choice, f"{key}={choice}") for choice in _split(value)]
        if len(choices) == 1:
            return [({}, (word,))]
    else:
        key = SUBJECT
        choices = [(path, path) for choice in _split(word) for path in _matching(choice)]
    return [({key: value} if len(choices) > 1 else {}, (said,)) for value, said in choices]


def _matching(pattern: str) -> list[str]:
    """The paths that a pattern with * stands for, or the word itself."""
    if "*" not in pattern:
        return [pattern]
    path = Path(pattern)
    found = sorted(str(each) for each in Path(path.anchor).glob(pattern[len(path.anchor) :]))
    if not found:
        raise InputError(f"{pattern}: nothing there is called so")
    return found


def _split(text: str) -> list[str]:
    """`text` cut at the commas outside brackets and quotes."""
    depth, pieces = 0, [""]
    for piece in _QUOTED_OR_LETTER.findall(text):
        depth += (piece in _OPENING) - (piece in _CLOSING)
        if piece == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += piece
    return [piece.strip() for piece in pieces]
