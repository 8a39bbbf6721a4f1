"""Members of betons, FFCV's files, which `python -m data_shards beton` writes beside the tars.

Order, draws and pixels are those of the tars: the rows are the samples of the same indices, the
bytes the same, and the decoder ours. FFCV's makes three equal channels of a grey JPEG, and by its
quick transform other values.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import accumulate

from data_shards.beton.layout import WRITE, beton_name, origin_of, place_of
from data_shards.command_line import shell_line
from data_shards.errors import InputError
from data_shards.records.indexed_samples import IndexedSample
from data_shards.records.manifest import ShardEntry
from data_shards.remote.shards import ShardFiles
from distributed_pretrain.data.stored_members import DamagedMemberError


class Betons:
    """The beton of one split, whose shards are `entries`; reading is thread-safe.

    Its pages are mapped: what is read of them is a view, without a copy. One that is cut meanwhile
    is noticed before each read; one that is cut within a read ends the process.

    Raises InputError without FFCV, and for a beton that is missing, cut, another's or of other
    shards.
    """

    def __init__(self, files: ShardFiles, entries: Sequence[ShardEntry]) -> None:
        try:
            from data_shards.beton.file import BetonError, OpenBeton
        except ImportError as error:
            raise InputError(
                f"data.reader=ffcv needs the extra `ffcv` ({error}): install it as pyproject.toml "
                "says, or set data.reader=tar"
            ) from error
        path = files.path(beton_name(entries[0].split))
        counts = [each.samples for each in entries]
        try:
            self._beton = OpenBeton(path, count=sum(counts), origin=origin_of(entries))
        except BetonError as error:
            raise InputError(
                f"{path}: {error}: run `{shell_line(*WRITE, path.parent)}`, or set data.reader=tar"
            ) from error
        self._first_rows = list(accumulate(counts, initial=0))
        self._bytes = memoryview(self._beton.pages)

    def check(self, entry: ShardEntry) -> None:
        """Nothing: the tars need not be there, and the beton was looked at when it was opened."""

    def read(self, shard: int, place: int, sample: IndexedSample, name: str) -> memoryview:
        """As in `StoredMembers`: a view of the mapped pages."""
        member = sample.members.get(name)
        if member is None:
            raise DamagedMemberError("is not in the index")
        field, at = place_of(sample, name)
        start = int(self._beton.starts[field][self._first_rows[shard] + place]) + at
        end = start + member.size
        # What lies behind the end of a file cannot be touched, though it is mapped.
        if end > self._beton.pages.size():
            raise DamagedMemberError("lies beyond the end of the beton, which has been cut")
        payload = self._bytes[start:end]
        if zlib.crc32(payload) != member.crc32:
            raise DamagedMemberError("differs from its checksum")
        return payload
