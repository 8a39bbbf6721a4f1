"""Tars in WebDataset's naming, whoever wrote them: members up to the first dot make a sample.

Nothing of a member runs: bytes are read of the kinds that an importer asks for, and no others.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from data_shards.errors import InputError
from data_shards.sources.formats.cells import refuse_no_name
from data_shards.sources.formats.json_values import parse_json

_BLOCK_BYTES = 512
_STEP_BYTES = 1 << 20
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"PK\x03\x04": "zip",
}
_COMPRESSED_NAMES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file inside a tar, as an `ImageFile`: its payload's place there, in bytes."""

    tar: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.tar}/{self.name}"

    def stat(self) -> os.stat_result:
        """That of the tar, with the member's size."""
        values = list(self.tar.stat())
        values[stat.ST_SIZE] = self.size
        return os.stat_result(values)

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
    members: dict[str, TarMember] = field(default_factory=dict)

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
        """The fields of the JSON member; none where there is no such member.

        Raises InputError for what is no JSON object.
        """
        if "json" not in self.members:
            return {}
        text = self.text("json")
        try:
            values = parse_json(text)
        except ValueError as error:
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


def no_tar(folder: Path, pattern: str) -> str:
    """Why no file in `folder` matches the pattern of its tars, in a line."""
    what = "no file matches" if folder.is_dir() else "no such folder: nothing matches"
    packed = [path.name for path in sorted(folder.glob("*"))]
    packed = [name for name in packed if name.lower().endswith(_COMPRESSED_NAMES)]
    hint = f", and unpack {packed[0]}, which is compressed, to a plain tar" if packed else ""
    return f"{folder}: {what} source.tars={pattern!r}: check both{hint}"


def read_samples(tar: Path) -> list[TarSample]:
    """The samples of one tar, in the order in which each begins; folders are no members.

    Members of a sample need not be side by side, and links stand for what they lead to. Raises
    InputError for a file that is no tar or has no end, and for a member that is there twice, cannot
    be named or is no plain file.
    """
    samples: dict[str, TarSample] = {}
    members = _members(tar)
    plain = {PurePosixPath(member.name): member for member in members if member.isreg()}
    for member in members:
        path = PurePosixPath(member.name)
        stem, _, name = path.name.partition(".")
        if not (stem and name) or member.isdir():
            continue
        key = _named(tar, member, str(path.with_name(stem)))
        sample = samples.setdefault(key, TarSample(tar, key))
        if name.lower() in sample.members:
            raise InputError(
                f"{sample.where}: duplicate ids: member {name} is there twice: keep one, or give "
                "each sample a key of its own"
            )
        there = _payload(tar, member, plain)
        place = TarMember(tar, str(path), there.offset_data, there.size)
        sample.members[name.lower()] = place
    return list(samples.values())


def _named(tar: Path, member: tarfile.TarInfo, key: str) -> str:
    try:
        member.name.encode()
        refuse_no_name(member.name)
    except UnicodeEncodeError as error:
        raise InputError(f"{tar}: member {key!r}: its name is not UTF-8: rename it") from error
    except ValueError as error:
        raise InputError(f"{tar}: member {key!r}: its name {error}") from error
    return key


def _payload(
    tar: Path, member: tarfile.TarInfo, plain: Mapping[PurePosixPath, tarfile.TarInfo]
) -> tarfile.TarInfo:
    """The member that holds the bytes of `member`, which may be a link."""
    there: tarfile.TarInfo | None = member
    if member.islnk() or member.issym():
        folder = PurePosixPath() if member.islnk() else PurePosixPath(member.name).parent
        there = plain.get(PurePosixPath(os.path.normpath(folder / member.linkname)))
    if there is None:
        said = f"a link to {member.linkname}, which is not in the tar"
    elif there.issparse():
        said = "a sparse file, of which the tar holds pieces"
    elif not there.isreg():
        said = f"no plain file (type {there.type.decode('latin-1')!r})"
    else:
        return there
    raise InputError(
        f"{tar}: member {member.name} is {said}: pack the files whole and themselves (tar "
        "--dereference --hard-dereference, without --sparse)"
    )


def _members(tar: Path) -> list[tarfile.TarInfo]:
    """All that a tar lists, and those that were put behind its end, as `cat` does."""
    size = tar.stat().st_size
    members: list[tarfile.TarInfo] = []
    start: int | None = 0
    with tar.open("rb") as file:
        head = file.read(8)
        kind = next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), None)
        if kind is not None:
            raise InputError(f"{tar}: compressed ({kind}): unpack it to a plain tar")
        while start is not None:
            file.seek(start)
            try:
                end = _list_one(file, size, members)
                start = _next_start(file, end)
            except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
                behind = f"what begins at byte {start:,}, behind its end: " if start else ""
                raise InputError(
                    f"{tar}: not a whole tar ({behind}{error}): fetch it again"
                ) from error
    return members


def _list_one(file: BinaryIO, size: int, members: list[tarfile.TarInfo]) -> int:
    """Add the members from here on to `members`; the byte at which they end."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            room = size - member.offset_data
            if member.isreg() and not member.issparse() and not 0 <= member.size <= room:
                raise tarfile.ReadError(f"{member.name} is said to have {member.size:,} bytes")
            members.append(member)
        end: int = archive.offset
    refuse_no_end(file, end, blocks=1)
    return end


def refuse_no_end(file: IO[bytes], end: int, *, blocks: int) -> None:
    """Raise tarfile.ReadError unless a tar, of whose headers `end` is behind the last, ends there.

    A listing stops at the first header that is none: zeros, of which a whole tar has two blocks or
    more, damage, or the end of a file that was cut.
    """
    file.seek(end)
    if file.read(blocks * _BLOCK_BYTES) != bytes(blocks * _BLOCK_BYTES):
        raise tarfile.ReadError(f"no header and no end at byte {end:,}")


def _next_start(file: BinaryIO, end: int) -> int | None:
    """The block that is not empty behind an end of zeros; None at the end of the file."""
    file.seek(end)
    place = end
    while block := file.read(_STEP_BYTES):
        zeros = len(block) - len(block.lstrip(b"\0"))
        if zeros < len(block):
            return place + zeros // _BLOCK_BYTES * _BLOCK_BYTES
        place += len(block)
    return None
