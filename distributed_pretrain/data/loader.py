"""Batches for training and evaluation, read and decoded ahead by threads.

Threads suffice: checksums, JPEG decoding and tokenizing release the interpreter's lock, and
nothing has to be copied between processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count

import numpy as np

from data_shards.errors import InputError
from distributed_pretrain.data.collate import Assembler, LoadedRow
from distributed_pretrain.data.host_batch import HostBatch
from distributed_pretrain.data.labels import check_labels
from distributed_pretrain.data.order import GlobalOrder, check_world_size, rank_slice
from distributed_pretrain.data.prefetch import prefetch_in_order
from distributed_pretrain.data.quarantine import Quarantine, replacement_position
from distributed_pretrain.data.report_tokenizer import ReportTokenizer
from distributed_pretrain.data.sample import load_evaluation_sample, load_training_sample
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import BadSampleError, ShardSplit

_REPLACEMENT_ATTEMPTS = 100


@dataclass(frozen=True)
class _Row:
    """One row to load: `real` is False where it only fills up a batch."""

    epoch: int
    position: int
    samples_consumed: int
    real: bool = True


_Plan = tuple[Sequence[_Row], Callable[[list[LoadedRow]], HostBatch]]


class TrainingLoader:
    """One rank's training batches, epoch after epoch, from any count of samples consumed.

    `seed` fixes the order and, of each sample in each epoch, the images and their augmentation. A
    batch's `micro_batches` equal parts are this rank's shares of the global batch's equal parts.
    Raises InputError when the ranks do not divide the global batch, the split is smaller than it
    or has no label of a name that is asked for.
    """

    def __init__(
        self,
        split: ShardSplit,
        tokenizer: ReportTokenizer,
        config: DataConfig,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        micro_batches: int = 1,
        quarantine: Quarantine | None = None,
        pin_memory: bool = False,
    ) -> None:
        check_world_size(config.global_batch, world_size)
        check_labels(split, config.labels)
        self.order = GlobalOrder(
            shard_sizes=split.shard_sizes,
            global_batch=config.global_batch,
            seed=seed,
            shuffle_window_shards=config.shuffle_window_shards,
        )
        self.wait_seconds = 0.0
        self._split = split
        self._config = config
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._micro_batches = micro_batches
        self._quarantine = quarantine or _quarantine_in_memory(split, config)
        self._assembler = Assembler(tokenizer, config, pin_memory)

    @property
    def steps_per_epoch(self) -> int:
        """Global batches an epoch."""
        return self.order.steps_per_epoch

    @property
    def samples_per_epoch(self) -> int:
        """Samples an epoch consumes: whole global batches of the split."""
        return self.order.steps_per_epoch * self.order.global_batch

    def batches(self, samples_consumed: int = 0) -> Generator[HostBatch]:
        """Batches without end, from the one after `samples_consumed` on.

        `wait_seconds` grows by the time the consumer had to wait. Closing the iterator, or any
        exception, ends the threads. Raises InputError when too many samples are unreadable.
        """
        stream = prefetch_in_order(
            self._plans(samples_consumed),
            self._load,
            threads=_threads(self._config),
            prefetch_batches=self._config.prefetch_batches,
        )
        with closing(stream):
            while True:
                started = time.perf_counter()
                batch = next(stream)
                self.wait_seconds += time.perf_counter() - started
                yield batch

    def _plans(self, samples_consumed: int) -> Iterator[_Plan]:
        first_epoch, first_step = self.order.epoch_and_step(samples_consumed)
        for epoch in count(first_epoch):
            positions = self.order.epoch_positions(epoch)
            for step in range(first_step, self.steps_per_epoch):
                samples_consumed += self.order.global_batch
                start = step * self.order.global_batch
                share = rank_slice(
                    positions[start : start + self.order.global_batch],
                    rank=self._rank,
                    world_size=self._world_size,
                    micro_batches=self._micro_batches,
                )
                rows = [_Row(epoch, int(position), samples_consumed) for position in share]
                yield rows, partial(self._assembler, epoch, samples_consumed)
            first_step = 0

    def _load(self, row: _Row) -> LoadedRow:
        position = row.position
        for attempt in range(_REPLACEMENT_ATTEMPTS):
            try:
                sample = load_training_sample(
                    self._split, self._config, seed=self._seed, epoch=row.epoch, position=position
                )
            except BadSampleError as error:
                self._quarantine.add(error, samples_consumed=row.samples_consumed)
                position = _replacement(self._split, self._seed, row, attempt)
            else:
                return LoadedRow(sample, real=True, replaced=attempt > 0)
        raise _none_readable(self._split)


class EvaluationLoader:
    """One rank's share of a whole split in fixed global batches, in file order.

    The last global batch is filled up to a multiple of the ranks with rows whose `sample_mask` is
    False; so are rows that stand in for unreadable samples, which no evaluation counts. Raises
    InputError when the ranks do not divide the global batch or the split lacks a label.
    """

    def __init__(
        self,
        split: ShardSplit,
        tokenizer: ReportTokenizer,
        config: DataConfig,
        *,
        rank: int = 0,
        world_size: int = 1,
        quarantine: Quarantine | None = None,
        pin_memory: bool = False,
    ) -> None:
        check_world_size(config.global_batch, world_size)
        check_labels(split, config.labels)
        self.split = split
        self._config = config
        self._rank = rank
        self._world_size = world_size
        self._quarantine = quarantine or _quarantine_in_memory(split, config)
        self._assembler = Assembler(tokenizer, config, pin_memory)

    def __len__(self) -> int:
        """Batches in the split, the same on every rank."""
        return -(-len(self.split) // self._config.global_batch)

    def batches(self) -> Generator[HostBatch]:
        """Every batch once. Raises InputError when too many samples are unreadable."""
        yield from prefetch_in_order(
            self._plans(),
            self._load,
            threads=_threads(self._config),
            prefetch_batches=self._config.prefetch_batches,
        )

    def _plans(self) -> Iterator[_Plan]:
        samples = len(self.split)
        for start in range(0, samples, self._config.global_batch):
            real = min(self._config.global_batch, samples - start)
            filled = -(-real // self._world_size) * self._world_size
            share = rank_slice(
                np.arange(start, start + filled), rank=self._rank, world_size=self._world_size
            )
            rows = [
                _Row(0, min(int(position), samples - 1), start + real, real=position < samples)
                for position in share
            ]
            yield rows, partial(self._assembler, 0, start + real)

    def _load(self, row: _Row) -> LoadedRow:
        position = row.position
        for attempt in range(_REPLACEMENT_ATTEMPTS):
            try:
                sample = load_evaluation_sample(self.split, self._config, position=position)
            except BadSampleError as error:
                self._quarantine.add(error, samples_consumed=row.samples_consumed)
                position = _replacement(self.split, 0, row, attempt)
            else:
                return LoadedRow(sample, real=row.real and attempt == 0, replaced=attempt > 0)
        raise _none_readable(self.split)


def _replacement(split: ShardSplit, seed: int, row: _Row, attempt: int) -> int:
    return replacement_position(
        seed=seed, epoch=row.epoch, position=row.position, attempt=attempt, samples=len(split)
    )


def _none_readable(split: ShardSplit) -> InputError:
    return InputError(
        f"{split.folder}: {_REPLACEMENT_ATTEMPTS} samples of split {split.split!r} in a row cannot "
        "be read: run `python -m data_shards verify` and build the damaged shards again"
    )


def _quarantine_in_memory(split: ShardSplit, config: DataConfig) -> Quarantine:
    return Quarantine(
        None, split=split.split, samples=len(split), max_bad_fraction=config.max_bad_fraction
    )


def _threads(config: DataConfig) -> int:
    return config.decode_threads or min(16, len(os.sched_getaffinity(0)))
