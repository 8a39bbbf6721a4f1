"""Shards of a store, fetched before a rank comes to read them."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue

from data_shards.errors import InputError, RunError
from data_shards.records.manifest import ShardEntry
from data_shards.remote.shards import ShardFiles
from distributed_pretrain.data.order import GlobalOrder
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import ShardSplit

# One connection seldom fills a network.
_FETCHED_AT_ONCE = 4


@contextlib.contextmanager
def shards_ahead(
    split: ShardSplit, order: GlobalOrder, config: DataConfig, samples_consumed: int
) -> Iterator[ShardsAhead | None]:
    """What fetches the shards of `split` ahead of that point of the order; None in a folder."""
    if not split.files.is_remote:
        yield None
        return
    largest = max(entry.bytes for entry in split.entries)
    room = config.cache.size_bytes // largest - order.shuffle_buffer_shards
    count = max(0, min(config.prefetch_shards, room))
    with contextlib.closing(
        ShardsAhead(split.files, split.entries, order.shards(samples_consumed), count)
    ) as ahead:
        yield ahead


class ShardsAhead:
    """Has the shards that are read now fetched, and `count` more of the order.

    What cannot be had is told by whoever reads it.
    """

    def __init__(
        self,
        files: ShardFiles,
        entries: Sequence[ShardEntry],
        order: Iterator[tuple[int, int]],
        count: int,
    ) -> None:
        self._files, self._entries, self._order, self._count = files, entries, order, count
        # From when on those that were asked for will be read.
        self._coming = deque[int]()
        self._wanted = SimpleQueue[ShardEntry | None]()
        # Daemons: a store that says nothing keeps no process from ending.
        self._threads = [
            threading.Thread(target=self._fetch, name="shards ahead", daemon=True)
            for _ in range(_FETCHED_AT_ONCE if count else 0)
        ]
        for thread in self._threads:
            thread.start()

    def reach(self, samples_consumed: int) -> None:
        """Ask for what comes behind the samples that are read when so many have been consumed."""
        while self._coming and self._coming[0] <= samples_consumed:
            self._coming.popleft()
        while len(self._coming) < self._count:
            begin, number = next(self._order)
            self._wanted.put(self._entries[number])
            if begin > samples_consumed:
                self._coming.append(begin)

    def close(self) -> None:
        """Ask for no more; what is on its way goes on to the end."""
        with contextlib.suppress(Empty):
            while True:
                self._wanted.get_nowait()
        for _ in self._threads:
            self._wanted.put(None)

    def _fetch(self) -> None:
        while (entry := self._wanted.get()) is not None:
            for name in (entry.index_name, entry.tar_name):
                with contextlib.suppress(InputError, RunError, OSError):
                    self._files.path(name)
