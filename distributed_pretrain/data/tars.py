"""Members of tars, wherever they lie in them."""

from __future__ import annotations

import os
import stat
import weakref
import zlib
from collections.abc import Sequence
from functools import lru_cache, partial

from data_shards.errors import InputError
from data_shards.records.indexed_samples import IndexedSample
from data_shards.records.manifest import ShardEntry
from data_shards.records.tar_members import BLOCK_BYTES, names_member
from data_shards.remote.shards import ShardFiles
from distributed_pretrain.data.stored_members import DamagedMemberError

# Each keeps a file descriptor, of which a process often has no more than 1,024.
_MOST_OPEN_TARS = 128


class Tars:
    """The tars of `entries`; reading is thread-safe.

    They are read, not mapped: of a mapping whose file is cut meanwhile the process would die.
    """

    def __init__(self, files: ShardFiles, entries: Sequence[ShardEntry]) -> None:
        self._files = files
        self._names = [each.tar_name for each in entries]
        # One that drops out is closed with its last reader. What a cache removes to make room would
        # stay on the disk while it is open.
        most = 0 if files.is_remote else _MOST_OPEN_TARS
        self._open = lru_cache(most)(partial(_OpenTar, files))

    def check(self, entry: ShardEntry) -> None:
        """Raise InputError for a tar that is missing or has another size than was written."""
        if self._files.is_remote:
            return  # a tar is held against its size and hash when it arrives
        tar = self._files.path(entry.tar_name)
        try:
            found = tar.stat()
        except (FileNotFoundError, NotADirectoryError):
            found = None
        if found is None or not stat.S_ISREG(found.st_mode):
            raise InputError(
                f"{tar}: the shard is missing: copy it again or build the shards again"
            )
        if (size := found.st_size) != entry.bytes:
            raise InputError(
                f"{tar}: {size} bytes, but {entry.bytes} were written (cut short?): "
                "copy it again or build the shards again"
            )

    def read(self, shard: int, place: int, sample: IndexedSample, name: str) -> memoryview:
        """As in `StoredMembers`. The index alone says where a member lies.

        A tar of a store whose copy here is damaged is fetched again first; StoreError or InputError
        where it is not to be had.
        """
        del place
        tar = self._names[shard]
        try:
            return self._read(tar, sample, name)
        except DamagedMemberError:
            if not self._files.mended(tar):
                raise
            return self._read(tar, sample, name)

    def _read(self, tar: str, sample: IndexedSample, name: str) -> memoryview:
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
        payload = memoryview(block)[BLOCK_BYTES:]
        if zlib.crc32(payload) != member.crc32:
            raise DamagedMemberError("differs from its checksum")
        return payload


class _OpenTar:
    """The number of an open file, which is closed when nobody holds this any more."""

    def __init__(self, files: ShardFiles, tar: str) -> None:
        file = files.open(tar)
        self.number = file.fileno()
        weakref.finalize(self, file.close)
