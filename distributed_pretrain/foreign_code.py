"""Folders of models and tokenizers that bring code of their own: it is never run, nor asked about.

Whatever loads by transformers says `trust_remote_code=False` besides; that alone would load a
known class in the place of the folder's own, in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_shards.errors import InputError
from data_shards.files.regular import parse_json, read_regular

# Where transformers looks for the classes of a folder.
_KEY = "auto_map"


def refuse_code(folder: str | Path) -> None:
    """Raise InputError for a folder whose configs name classes in its own code; nothing else."""
    for path in sorted(Path(folder).glob("*.json")) if Path(folder).is_dir() else []:
        try:
            values = parse_json(read_regular(path)) if path.stat().st_size < 2**24 else None
        except (OSError, ValueError):
            continue  # whoever reads it says so
        if isinstance(values, dict):
            refuse_code_in(values, path)


def refuse_code_in(config: Mapping[str, Any], where: str | Path) -> None:
    """Raise InputError for a config that names classes in code of its own."""
    if _KEY in config:
        raise InputError(
            f"{where}: names code of its own ({_KEY}), which is never run: use a model of "
            f"transformers' own classes, or take {_KEY} out if it is one"
        )
