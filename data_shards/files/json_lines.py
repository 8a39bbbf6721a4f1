"""Files of JSON lines that several processes write: each its own, for network file systems lose
lines that meet in one file.

<folder>/skipped.jsonl           of one writer, or of the first
<folder>/skipped-rank3.jsonl     of another
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from data_shards.errors import InputError
from data_shards.files.atomic import write_text_atomically

Line: TypeAlias = dict[str, Any]


class JsonLines:
    """The lines of all writers under one name, `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, line: Line, *, writer: str = "") -> None:
        """Add a line to those of `writer`, in one short write; its folder is made."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        path = self.path.with_stem(f"{self.path.stem}-{writer}") if writer else self.path
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def read(self) -> list[Line]:
        """The lines of all writers, one writer's after another's. Raises InputError as below."""
        return [line for path in self._files() for line in read_lines(path)]

    def keep(self, wanted: Callable[[Line], bool]) -> None:
        """Drop the lines that are not `wanted`, and what a kill left half-written."""
        for path in self._files():
            kept = [json.dumps(line) + "\n" for line in read_lines(path) if wanted(line)]
            write_text_atomically(path, "".join(kept))

    def _files(self) -> Iterator[Path]:
        if self.path.exists():
            yield self.path
        yield from sorted(self.path.parent.glob(f"{self.path.stem}-*{self.path.suffix}"))


def rank_writer(rank: int) -> str:
    """The writer that a rank is: rank 0 has the file without a name, as one process alone has."""
    return f"rank{rank}" if rank else ""


def read_lines(path: Path, *, last_bytes: int | None = None) -> list[Line]:
    """The whole lines of one file, oldest first; none where there is no file.

    What follows the last line break is still being written, or was when a process was killed.
    `last_bytes` reads the end alone. Raises InputError for a line that is no JSON object.
    """
    try:
        with path.open("rb") as file:
            start = 0 if last_bytes is None else max(0, path.stat().st_size - last_bytes)
            file.seek(start)
            pieces = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    # A read from the middle begins with the rest of a line.
    return [_parse(path, piece) for piece in pieces[1 if start else 0 : -1] if piece]


def _parse(path: Path, piece: bytes) -> Line:
    try:
        line = json.loads(piece)
    except ValueError:
        line = None
    if not isinstance(line, dict):
        shown = piece[:60].decode(errors="replace")
        raise InputError(f"{path}: not a line of JSON: {shown!r}: remove that line, or the file")
    return line
