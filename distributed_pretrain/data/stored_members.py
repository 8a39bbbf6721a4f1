"""What gives the members of samples: the tars, or the betons that were written from them."""

from __future__ import annotations

from typing import Protocol

from data_shards.records.indexed_samples import IndexedSample
from data_shards.records.manifest import ShardEntry


class DamagedMemberError(ValueError):
    """Why a member cannot be had: what follows its name."""


class StoredMembers(Protocol):
    """The members of a split's samples, wherever they lie; reading is thread-safe."""

    def check(self, entry: ShardEntry) -> None:
        """Raise InputError where what holds a shard's members is not there, or has been cut."""

    def read(self, shard: int, place: int, sample: IndexedSample, name: str) -> memoryview:
        """The member `name` of the sample at `place` in the split's shard of this number.

        Held against its CRC-32. Raises DamagedMemberError when the index has none, and when it
        cannot be read or is not what was written.
        """
