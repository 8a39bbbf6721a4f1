"""Parquet tables, read by pyarrow a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from data_shards.errors import InputError

_ROWS_AT_A_TIME = 1024


def read_parquet(
    path: Path, require: Callable[[Sequence[str]], None]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(Number of the row from 1 on, its cells by column) of each row that has any.

    `require` gets the names of the columns and raises InputError for one that is missing. Nulls and
    NaN are None, numbers with decimals `Decimal`. Raises InputError for a file that is absent or
    damaged, and where pyarrow is not installed.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such table: check the path in the profile")
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise InputError(
            f"{path}: Parquet needs pyarrow: pip install 'radalign[parquet]', or save it as CSV"
        ) from error
    number = 0
    try:
        with ParquetFile(path) as file:
            require(tuple(file.schema_arrow.names))
            for batch in file.iter_batches(_ROWS_AT_A_TIME):
                for row in batch.to_pylist():
                    number += 1
                    cells = {name: _cell(value) for name, value in row.items()}
                    if any(value not in (None, "") for value in cells.values()):
                        yield number, cells
    except (ArrowException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: not a sound Parquet file ({reason}): write it again") from error


def _cell(value: Any) -> Any:
    # Floats of whole value may be ids whose column lost its type to a missing cell.
    if isinstance(value, float):
        return None if value != value else Decimal(repr(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value
