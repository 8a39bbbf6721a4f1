"""The global sample order: a pure function of (seed, epoch), the same for any number of ranks.

Shards are permuted; samples are shuffled within a window of consecutive shards, so that reading
touches only a window's tars at a time. The only state of a run is `samples_consumed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_shards.errors import InputError

# Keeps the order's random stream apart from the draws of single samples.
_ORDER_STREAM = 0x0D0E


class OrderedBatch(NamedTuple):
    """The positions of a global batch, the samples consumed after it, and its epoch."""

    positions: NDArray[np.int64]
    samples_consumed: int
    epoch: int


@dataclass(frozen=True)
class GlobalOrder:
    """The order of `sum(shard_sizes)` samples, whose positions count in file order.

    Raises InputError when a global batch holds more samples than there are.
    """

    shard_sizes: tuple[int, ...]
    global_batch: int
    seed: int
    shuffle_buffer_shards: int

    def __post_init__(self) -> None:
        if self.global_batch > self.samples:
            raise InputError(
                f"global_batch={self.global_batch} is larger than the split of {self.samples} "
                f"samples: use at most {self.samples}, or add studies"
            )

    @property
    def samples(self) -> int:
        """How many samples an epoch orders (the last `samples % global_batch` are not used)."""
        return sum(self.shard_sizes)

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches in an epoch; every rank runs as many steps."""
        return self.samples // self.global_batch

    def epoch_and_step(self, samples_consumed: int) -> tuple[int, int]:
        """Where a run stands that has consumed so many samples: epoch and step in it, from 0."""
        steps, rest = divmod(samples_consumed, self.global_batch)
        if rest:
            raise InputError(
                f"samples_consumed={samples_consumed} is no multiple of "
                f"global_batch={self.global_batch}: resume with the global batch of the checkpoint"
            )
        return divmod(steps, self.steps_per_epoch)

    def batches(self, samples_consumed: int) -> Iterator[OrderedBatch]:
        """Global batches without end, from the one after `samples_consumed` on."""
        first_epoch, first_step = self.epoch_and_step(samples_consumed)
        for epoch in count(first_epoch):
            positions = self.epoch_positions(epoch)
            for step in range(first_step, self.steps_per_epoch):
                start = step * self.global_batch
                samples_consumed += self.global_batch
                whole = positions[start : start + self.global_batch]
                yield OrderedBatch(whole, samples_consumed, epoch)
            first_step = 0

    def shards(self, samples_consumed: int) -> Iterator[tuple[int, int]]:
        """Shards in the order in which they are read, without end, from that point on.

        Each with the count of samples consumed from which on it may be read.
        """
        first_epoch, _ = self.epoch_and_step(samples_consumed)
        an_epoch = self.steps_per_epoch * self.global_batch
        for epoch in count(first_epoch):
            start = 0
            for window in self._windows(self._random(epoch)):
                size = sum(self.shard_sizes[number] for number in window)
                begin, end = (epoch * an_epoch + min(at, an_epoch) for at in (start, start + size))
                if end > max(begin, samples_consumed):  # read at all, and from there on
                    yield from ((begin, int(number)) for number in window)
                start += size

    def epoch_positions(self, epoch: int) -> NDArray[np.int64]:
        """All positions in the order of `epoch`, (samples,)."""
        random = self._random(epoch)
        ends = np.cumsum(self.shard_sizes)
        windows = []
        for window in self._windows(random):
            positions = [np.arange(ends[i] - self.shard_sizes[i], ends[i]) for i in window]
            windows.append(random.permutation(np.concatenate(positions)))
        return np.concatenate(windows)

    def _random(self, epoch: int) -> np.random.Generator:
        state = np.random.SeedSequence((self.seed, epoch, _ORDER_STREAM))
        return np.random.Generator(np.random.Philox(state))

    def _windows(self, random: np.random.Generator) -> list[NDArray[np.int64]]:
        """The shards that are shuffled together, in order; the first that is drawn of an epoch."""
        shards = random.permutation(len(self.shard_sizes))
        starts = range(0, len(shards), self.shuffle_buffer_shards)
        return [shards[start : start + self.shuffle_buffer_shards] for start in starts]


def check_world_size(global_batch: int, world_size: int) -> None:
    """Raises InputError, naming the nearest that fit, unless the ranks divide the global batch."""
    rest = global_batch % world_size
    if rest == 0:
        return
    divisors = [n for n in range(1, global_batch + 1) if global_batch % n == 0]
    fewer, more = [n for n in divisors if n < world_size], [n for n in divisors if n > world_size]
    ranks = " or ".join(map(str, fewer[-1:] + more[:1]))
    larger = global_batch - rest + world_size
    batches = f"{global_batch - rest} or {larger}" if global_batch > rest else larger
    raise InputError(
        f"global_batch={global_batch} is not divisible by {world_size} ranks: "
        f"use {ranks} ranks, or global_batch={batches}"
    )
