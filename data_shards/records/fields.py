"""What fields of stored documents may hold: numbers with bounds, names that stay in a folder."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import core_schema


class _Meaning:
    """Says what a pattern is for; the pattern itself is matched without Python, a million times."""

    def __init__(self, meaning: str) -> None:
        self._meaning = meaning

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.custom_error_schema(
            handler(source), custom_error_type="pattern", custom_error_message=self._meaning
        )


FileName: TypeAlias = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=200),
    _Meaning("not the name of a file in this folder"),
]
Name: TypeAlias = Annotated[str, Field(min_length=1)]
# Bytes, pixels, samples: all that a machine can count, so that no sum or seek overflows.
Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**62)]
Crc32: TypeAlias = Annotated[int, Field(ge=0, lt=2**32)]
Sha256: TypeAlias = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Side: TypeAlias = Annotated[int, Field(ge=1, lt=2**31)]
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
FiniteNotNegative: TypeAlias = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
