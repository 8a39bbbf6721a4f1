"""Files that hold either their old content or all of the new, whatever happens meanwhile."""

from __future__ import annotations

import os
from pathlib import Path


def write_text_atomically(path: Path, text: str, *, workplace: Path | None = None) -> None:
    """Write `text` so that `path` either keeps its old content or holds all of the new."""
    write_bytes_atomically(path, text.encode(), workplace=workplace)


def write_bytes_atomically(
    path: Path, payload: bytes, *, sync: bool = True, workplace: Path | None = None
) -> None:
    """Write `payload` so that `path` either keeps its old content or holds all of the new.

    `sync=False` is for many small files that a marker vouches for: it promises this for a full
    disk and a killed process, but not for a power cut. What is unfinished lies beside `path`, or
    in `workplace` (of the same file system) where several processes may write `path` at once.
    """
    temporary = (workplace or path.parent) / f"{path.name}.partial"
    try:
        with temporary.open("wb") as file:
            file.write(payload)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
