"""Files of JSON lines that several processes write: each its own, for network file systems lose
lines that meet in one file.

<folder>/skipped.jsonl           of one writer, or of the first
<folder>/skipped-rank3.jsonl     of another

What a crash leaves at the end of one is no line: half of one, zeros, or bytes that are no text. It
is left out by whoever reads, and cut off by whoever writes next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from data_shards.errors import InputError
from data_shards.files.atomic import write_bytes_atomically
from data_shards.files.regular import open_regular, parse_json

Line: TypeAlias = dict[str, Any]
IsLine: TypeAlias = Callable[[Line], bool]
# Whether a line (the second) may come after another.
Follows: TypeAlias = Callable[[Line, Line], bool]


def _any(_: Line) -> bool:
    return True


class JsonLines:
    """The lines of all writers under one name, `path`; an object that `is_line` refuses is none."""

    def __init__(self, path: Path, is_line: IsLine = _any) -> None:
        self.path = path
        self._is_line = is_line

    def append(self, line: Line, *, writer: str = "") -> None:
        """Add a line to those of `writer`, in one short write; its folder is made."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        path = self.path.with_stem(f"{self.path.stem}-{writer}") if writer else self.path
        try:
            with open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as file:
                _cut_half_line(file)
                file.write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            error.filename = error.filename or str(path)
            raise

    def read(self) -> list[Line]:
        """The lines of all writers, one writer's after another's. Raises InputError as below."""
        return [line for path in self._files() for line in read_lines(path, self._is_line)]

    def keep(self, wanted: IsLine) -> None:
        """Drop the lines that are not `wanted`, and what a crash left at the end."""
        for path in self._files():
            kept = [
                json.dumps(line) + "\n" for line in read_lines(path, self._is_line) if wanted(line)
            ]
            payload = "".join(kept).encode()
            if payload != path.read_bytes():
                write_bytes_atomically(path, payload)

    def mend(self) -> None:
        """Cut off what a crash left at the end."""
        self.keep(_any)

    def _files(self) -> Iterator[Path]:
        if os.path.lexists(self.path):
            yield self.path
        yield from sorted(self.path.parent.glob(f"{self.path.stem}-*{self.path.suffix}"))


def rank_writer(rank: int) -> str:
    """The writer that a rank is: rank 0 has the file without a name, as one process alone has."""
    return f"rank{rank}" if rank else ""


def read_lines(
    path: Path,
    is_line: IsLine = _any,
    *,
    follows: Follows | None = None,
    last_bytes: int | None = None,
    skip_bad: bool = False,
) -> list[Line]:
    """The lines of one file, oldest first; none where there is no file.

    Without what a crash left at the end (see above), or what is still being written there.
    `last_bytes` reads the end alone. Raises InputError, naming the line, for one that is no JSON
    object or that `is_line` refuses, where a good one follows or there is none; `skip_bad` leaves
    it out. And, naming the lines, where `follows(earlier, line)` says that they cannot come after
    what stands before them.
    """
    try:
        with open_regular(path) as file:
            start = (
                0 if last_bytes is None else max(0, os.fstat(file.fileno()).st_size - last_bytes)
            )
            file.seek(start)
            pieces = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    # A read from the middle begins with the rest of a line.
    first = 1 if start else 0
    lines: dict[int, Line] = {}
    bad = None
    for number, piece in enumerate(pieces[first:-1], first + 1):
        line = _parse(piece)
        if line is None or not is_line(line):
            bad = bad or (piece and (number, piece, line)) or None
        elif bad is None or skip_bad:
            lines[number] = line
        else:
            break
    else:
        if lines or bad is None or skip_bad:
            if follows is not None:
                _refuse_repeats(path, lines, follows, numbered=not start)
            return list(lines.values())
    number, piece, line = bad
    kind = "a line of JSON" if line is None else "such a line as this file has"
    where = str(path) if start else f"{path}, line {number}"
    shown = piece[:60].decode(errors="replace")
    raise InputError(f"{where}: not {kind}: {shown!r}: remove that line, or the file")


def _refuse_repeats(
    path: Path, lines: dict[int, Line], follows: Follows, *, numbered: bool
) -> None:
    newest: Line | None = None
    repeats: list[int] = []
    for number, line in lines.items():
        if newest is None or follows(newest, line):
            if repeats:
                break
            newest = line
        else:
            repeats.append(number)
    if not repeats:
        return
    where = f"{path}, lines {repeats[0]} to {repeats[-1]}" if numbered else str(path)
    shown = json.dumps(lines[repeats[0]])[:60]
    raise InputError(
        f"{where}: repeat what stands before them, or go back ({shown}): was the file copied "
        "into itself? Remove those lines"
    )


def _parse(piece: bytes) -> Line | None:
    try:
        # Of UTF-16 the first line alone would be one.
        line = parse_json(piece.decode("utf-8-sig"))
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _cut_half_line(file: Any) -> None:
    """A line added to half of one would be lost with it."""
    end = file.seek(0, os.SEEK_END)
    if end:
        file.seek(end - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
