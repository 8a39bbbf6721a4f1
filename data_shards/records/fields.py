"""What fields of stored documents may hold: numbers with bounds, names that stay in a folder."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field

_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


def _stays_in_its_folder(name: str) -> str:
    if not _FILE_NAME.fullmatch(name):
        shown = name if len(name) < 80 else f"{name[:80]}..."
        raise ValueError(f"{shown!r} is not the name of a file in this folder")
    return name


FileName: TypeAlias = Annotated[str, AfterValidator(_stays_in_its_folder)]
Name: TypeAlias = Annotated[str, Field(min_length=1)]
# Bytes, pixels, samples: all that a machine can count, so that no sum or seek overflows.
Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**62)]
Crc32: TypeAlias = Annotated[int, Field(ge=0, lt=2**32)]
Sha256: TypeAlias = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Side: TypeAlias = Annotated[int, Field(ge=1, lt=2**31)]
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
FiniteNotNegative: TypeAlias = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
