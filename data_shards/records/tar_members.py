"""Tars as `build` writes them: plain members, each after a header that names it.

Headers are read strictly: whatever else may stand in a tar (links, sparse files, sizes beyond the
end) is no shard's.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

BLOCK_BYTES = 512
_NAME_BYTES = 100
_STEP_BYTES = 1 << 20


class BadTarError(ValueError):
    """What is wrong with a tar, and at which byte."""


def names_member(header: bytes, name: str) -> bool:
    """Whether the header before a payload is that of the member `name`.

    Of a name that is longer than the header's field it holds the start.
    """
    return header[:_NAME_BYTES].rstrip(b"\0") == name.encode()[:_NAME_BYTES]


def list_members(tar: BinaryIO, tar_bytes: int) -> Iterator[tuple[str, int, int]]:
    """(Name, offset of the payload, its size) of each member, in bytes and in order.

    Raises BadTarError at the first header that `build` would not have written.
    """
    at, long_name = 0, None
    while at < tar_bytes:
        tar.seek(at)
        header = tar.read(BLOCK_BYTES)
        if not header.strip(b"\0") and len(header) == BLOCK_BYTES:
            while rest := tar.read(_STEP_BYTES):
                if rest.strip(b"\0"):
                    raise BadTarError("other bytes are behind its end")
            return
        try:
            member = tarfile.TarInfo.frombuf(header, "ascii", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise BadTarError(f"no header of a member at byte {at:,} ({error})") from error
        payload = at + BLOCK_BYTES
        if not 0 <= member.size <= tar_bytes - payload:
            raise BadTarError(f"the member at byte {at:,} is said to have {member.size:,} bytes")
        if member.type == tarfile.XHDTYPE:
            long_name = _long_name(tar.read(member.size))
        elif member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            yield long_name or member.name, payload, member.size
            long_name = None
        else:
            raise BadTarError(f"the member at byte {at:,} is no plain file")
        at = payload + -(-member.size // BLOCK_BYTES) * BLOCK_BYTES
    raise BadTarError("it has no end")


def _long_name(records: bytes) -> str:
    """The name that a header of extended fields gives to the member after it."""
    for record in records.split(b"\n"):
        _, _, field = record.partition(b" ")
        key, _, value = field.partition(b"=")
        if key == b"path":
            return value.decode(errors="replace")
    raise BadTarError("a header of extended fields names no member")
