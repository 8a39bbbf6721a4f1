"""Tars in WebDataset's naming, whoever wrote them: members up to the first dot make a sample.

Nothing of a member runs: bytes are read of the kinds that an importer asks for, and no others.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from data_shards.errors import InputError
from data_shards.sources.formats.tables import parse_json

_BLOCK_BYTES = 512


class TarMemberPath(type(Path())):  # type: ignore[misc]
    """`<tar>/<member>`: a file inside a tar, which can be read and looked at, not listed."""

    tar: Path
    offset: int
    size: int

    @classmethod
    def of(cls, tar: Path, member: tarfile.TarInfo) -> TarMemberPath:
        """The payload of a member."""
        path = cls(f"{tar}/{member.name}")
        path.tar, path.offset, path.size = tar, member.offset_data, member.size
        return path

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """That of the tar, with the member's size."""
        values = list(self.tar.stat(follow_symlinks=follow_symlinks))
        values[6] = self.size
        return os.stat_result(values)

    def is_file(self, **options: bool) -> bool:
        """Whether the tar is there."""
        return self.tar.is_file(**options)

    def read_bytes(self) -> bytes:
        """The member's payload."""
        with self.tar.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True, slots=True)
class TarSample:
    """One sample: its members by what follows the key's dot, in lower case and in order."""

    tar: Path
    key: str
    members: dict[str, TarMemberPath] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Tar and key, for messages."""
        return f"{self.tar}: sample {self.key}"

    def text(self, name: str, *, most_bytes: int = 2**24) -> str:
        """A member as text. Raises InputError unless it is UTF-8 of a sensible size."""
        path = self.members[name]
        if path.size > most_bytes:
            raise InputError(f"{path}: {path.size:,} bytes are no report: leave the sample out")
        try:
            return path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 text ({error}): convert it") from error

    def fields(self) -> dict[str, Any]:
        """The fields of the JSON member; none where there is no such member."""
        if "json" not in self.members:
            return {}
        text = self.text("json")
        try:
            values = parse_json(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.where}: json: not valid JSON ({error})") from error
        if not isinstance(values, dict):
            raise InputError(f"{self.where}: json: not an object with fields")
        return values

    def cells(self, field_of: Mapping[str, str]) -> dict[str, str]:
        """By our names the texts of the JSON's fields; absent ones and null are empty.

        Whole numbers may be ids. Raises InputError for what is neither them nor text.
        """
        values = self.fields() if field_of else {}
        cells: dict[str, str] = {}
        for name, field_name in field_of.items():
            value = values.get(field_name)
            # To Python true is a whole number.
            if not (value is None or isinstance(value, str) or type(value) is int):
                raise InputError(
                    f"{self.where}: json: {field_name!r} is neither text nor a whole number "
                    f"({value!r:.40})"
                )
            cells[name] = "" if value is None else str(value)
        return cells


def read_samples(tar: Path) -> Iterator[TarSample]:
    """The samples of one tar, in its order; folders, links and the like are no members.

    Raises InputError for a file that is no tar or has no end, and for a member that is there twice.
    """
    sample: TarSample | None = None
    for member in _members(tar):
        path = PurePosixPath(member.name)
        stem, _, name = path.name.partition(".")
        if not (stem and name and member.isfile()):
            continue
        key = str(path.with_name(stem))
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = TarSample(tar, key)
        if name.lower() in sample.members:
            raise InputError(f"{sample.where}: duplicate ids: member {name} is there twice")
        sample.members[name.lower()] = TarMemberPath.of(tar, member)
    if sample is not None:
        yield sample


def _members(tar: Path) -> Iterator[tarfile.TarInfo]:
    size = tar.stat().st_size
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                if not 0 <= member.size <= size - member.offset_data:
                    raise tarfile.ReadError(f"{member.name} is said to have {member.size:,} bytes")
                yield member
            end = archive.offset
        with tar.open("rb") as file:
            # The listing stops at the first header that is none: zeros, or damage.
            file.seek(end)
            if file.read(_BLOCK_BYTES) != bytes(_BLOCK_BYTES):
                raise tarfile.ReadError(f"no header and no end at byte {end:,}")
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise InputError(f"{tar}: not a whole tar ({error}): fetch it again") from error
