"""JSON that others wrote: every source reads it here."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from data_shards.errors import InputError
from data_shards.files.regular import object_of, read_document


def parse_json(text: str | bytes) -> Any:
    """The value, numbers with decimals as they are written (`Decimal`).

    Bytes are UTF-8, -16 or -32. Raises ValueError for all that is no JSON, for a key that is there
    twice, and for brackets without end.
    """
    try:
        return json.loads(text, object_pairs_hook=object_of, parse_float=Decimal)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text: {error.reason}") from error
    except RecursionError as error:
        raise ValueError("brackets within brackets, too deep to be meant") from error


def read_json(path: Path) -> Any:
    """The value that a file holds. Raises InputError, naming the file, where it holds none."""
    try:
        return parse_json(read_document(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: no such file: check the path in the profile") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not valid JSON ({error}): fetch it again") from error
