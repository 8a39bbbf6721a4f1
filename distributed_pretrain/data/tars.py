"""Members of tars, wherever they lie in them."""

from __future__ import annotations

import os
import weakref
import zlib
from functools import lru_cache, partial

from data_shards.records.indexed_samples import IndexedSample
from data_shards.records.tar_members import BLOCK_BYTES, names_member
from data_shards.remote.shards import ShardFiles

# Each keeps a file descriptor, of which a process often has no more than 1,024.
_MOST_OPEN_TARS = 128


class DamagedMemberError(ValueError):
    """Why a member cannot be had: what follows its name."""


class Tars:
    """The tars of a folder; reading is thread-safe.

    They are read, not mapped: of a mapping whose file is cut meanwhile the process would die.
    """

    def __init__(self, files: ShardFiles) -> None:
        self._files = files
        # One that drops out is closed with its last reader. What a cache removes to make room would
        # stay on the disk while it is open.
        most = 0 if files.is_remote else _MOST_OPEN_TARS
        self._open = lru_cache(most)(partial(_OpenTar, files))

    def read(self, tar: str, sample: IndexedSample, name: str) -> bytes:
        """The payload of the sample's member `name`.

        Raises DamagedMemberError when the index has none, or when the tar cannot be read, has been
        cut, holds another member there, or other bytes than were written. A tar of a store whose
        copy here is damaged is fetched again first; StoreError or InputError where it is not to be
        had.
        """
        try:
            return self._read(tar, sample, name)
        except DamagedMemberError:
            if not self._files.mended(tar):
                raise
            return self._read(tar, sample, name)

    def _read(self, tar: str, sample: IndexedSample, name: str) -> bytes:
        member = sample.members.get(name)
        if member is None:
            raise DamagedMemberError("is not in the index")
        wanted = BLOCK_BYTES + member.size
        try:
            # Held by a name: another thread may have had the cache drop it, which closes it.
            file = self._open(tar)
            block = os.pread(file.number, wanted, member.offset - BLOCK_BYTES)
        except OSError as error:
            raise DamagedMemberError(f"cannot be read ({error.strerror})") from error
        if len(block) < wanted:
            raise DamagedMemberError("lies beyond the end of the tar, which has been cut")
        if not names_member(block, f"{sample.key}.{name}"):
            raise DamagedMemberError("is not where the index says")
        payload = block[BLOCK_BYTES:]
        if zlib.crc32(payload) != member.crc32:
            raise DamagedMemberError("differs from its checksum")
        return payload


class _OpenTar:
    """The number of an open file, which is closed when nobody holds this any more."""

    def __init__(self, files: ShardFiles, tar: str) -> None:
        self.number = files.open(tar)
        weakref.finalize(self, os.close, self.number)
