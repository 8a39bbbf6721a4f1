"""The indices of a split's shards: all read and checked at the start, few held in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from data_shards.records.documents import refuse_contradictions
from data_shards.records.indexed_samples import IndexedSample
from data_shards.records.manifest import ShardEntry, ShardIndex
from data_shards.remote.shards import ShardFiles

# As many as tars are open. An index of 500 samples takes half a MB in memory and milliseconds to
# read, all of a large set take hundreds of MB.
_HELD = 128
# Each is asked for with its record and with each image: those that threads are at.
_SAMPLES_HELD = 256


class Indexes:
    """The indices of the shards in `entries`, by their number there; thread-safe."""

    def __init__(self, files: ShardFiles, entries: Sequence[ShardEntry]) -> None:
        self._files = files
        self.entries = tuple(entries)
        self._held = lru_cache(_HELD)(self._read)
        self.sample = lru_cache(_SAMPLES_HELD)(self._sample)

    def hold(self, count: int) -> None:
        """Hold at least so many, among which samples are asked for in no order."""
        if count > _HELD:
            self._held = lru_cache(count)(self._read)

    def checked(self) -> Iterator[ShardIndex]:
        """Each index in turn, held against itself and its manifest.

        Raises InputError for one that is missing, malformed or contradicts any of these.
        """
        for number, entry in enumerate(self.entries):
            index = self._read(number)
            path = self._files.folder / entry.index_name
            refuse_contradictions(index.contradictions(entry), path)
            yield index

    def _sample(self, number: int, place: int) -> IndexedSample:
        """The sample at `place` in shard `number`.

        Raises InputError when the index has changed since the start, or is gone.
        """
        return self._held(number).samples[place]

    def _read(self, number: int) -> ShardIndex:
        return self._files.read_index(self.entries[number])
