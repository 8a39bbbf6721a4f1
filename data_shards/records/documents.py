"""Documents of a shard folder, held to the type and range of every field, or refused in a line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from data_shards.errors import InputError
from data_shards.files.regular import parse_json, read_document

# Keys of objects repeat, ids do not: to look these up in a cache would be in vain.
DOCUMENT = ConfigDict(frozen=True, extra="forbid", cache_strings="keys")


class Document(BaseModel):
    """Base of what is stored as JSON: frozen, and without unknown keys."""

    model_config = DOCUMENT


DocumentT = TypeVar("DocumentT", bound=Document)


def parse_document(kind: type[DocumentT], content: bytes, path: Path, remedy: str) -> DocumentT:
    """The document of `kind` that `content`, the bytes of `path`, spells.

    Raises InputError, with field and reason, for another schema version and all that is malformed.
    """
    try:
        return kind.model_validate_json(content, strict=True)
    except ValidationError as error:
        field, wrong = place_and_reason(error)
        if field == "schema_version":
            first = error.errors()[0]
            expected = first.get("ctx", {}).get("expected", "another")
            wrong = f"schema version {first['input']!r:.40}, but this release reads {expected}"
            remedy = "build the shards again, or read them with the release that wrote them"
        elif field:
            wrong = f"{field}: {wrong}"
        raise InputError(f"{path}: {wrong}: {remedy}") from error


def read_without_doubles(path: Path, remedy: str) -> bytes:
    """The bytes of a document. Raises InputError where it is no JSON or has a key twice.

    For one without a checksum elsewhere: `parse_document`, which is fast, takes the last of two.
    """
    content = read_document(path)
    refuse_doubles(content, path, remedy)
    return content


def refuse_doubles(content: bytes, path: Path, remedy: str) -> None:
    """The same for the bytes of `path`."""
    try:
        parse_json(content)
    except ValueError as error:
        raise InputError(f"{path}: Invalid JSON: {error}: {remedy}") from error


def refuse_contradictions(found: Iterable[str], path: Path | str) -> None:
    """Raise InputError for the first of what is `found` in the document at `path`."""
    for wrong in found:
        raise InputError(
            f"{path}: {wrong}: run `python -m data_shards verify`, which lists all that is wrong, "
            "and copy or build the shards again"
        )


def place_and_reason(error: ValidationError) -> tuple[str, str]:
    """Where in a document the first of the errors lies, dotted, and what is wrong there."""
    first = error.errors(include_url=False, include_input=False)[0]
    # The names of the types that were tried are in brackets.
    place = ".".join(str(part) for part in first["loc"] if "[" not in str(part))
    return place, first["msg"].removeprefix("Value error, ")
