"""Batches on the device for training and evaluation, read and decoded ahead by threads.

Threads suffice: checksums, JPEG decoding and tokenizing release the interpreter's lock, and
nothing has to be copied between processes.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import ClassVar

import numpy as np
import torch

from data_shards.errors import InputError
from data_shards.processes import available_cores
from distributed_pretrain.batch import Batch
from distributed_pretrain.data.augmentation import DeviceTransform
from distributed_pretrain.data.collate import Collate
from distributed_pretrain.data.host_batch import HostBatch
from distributed_pretrain.data.labels import check_labels
from distributed_pretrain.data.order import GlobalOrder, check_world_size, rank_slice
from distributed_pretrain.data.prefetch import prefetch_in_order
from distributed_pretrain.data.quarantine import Quarantine, replacement_position
from distributed_pretrain.data.sample import (
    LoadedRow,
    LoadedSample,
    load_evaluation_sample,
    load_training_sample,
)
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import BadSampleError, ShardSplit
from distributed_pretrain.data.tokenization import ReportTokenizer

_REPLACEMENT_ATTEMPTS = 100
_HOST = torch.device("cpu")


@dataclass(frozen=True)
class _Row:
    """One row to load: `real` is False where it only fills up a batch."""

    epoch: int
    position: int
    samples_consumed: int
    real: bool = True


_Plan = tuple[Sequence[_Row], Callable[[list[LoadedRow]], HostBatch]]


class _Loader(ABC):
    """What training and evaluation share: rows planned, loaded ahead, joined, and transformed.

    Batches lie on `device`. `quarantine` counts unreadable samples (None: in memory alone).
    Raises InputError when the ranks do not divide the global batch, or the split lacks a label.
    """

    seed: int = 0
    _augmented: ClassVar[bool]

    def __init__(
        self,
        split: ShardSplit,
        tokenizer: ReportTokenizer,
        config: DataConfig,
        *,
        rank: int = 0,
        world_size: int = 1,
        quarantine: Quarantine | None = None,
        device: torch.device = _HOST,
    ) -> None:
        check_world_size(config.global_batch, world_size)
        check_labels(split, config.labels)
        self.split = split
        self.wait_seconds = 0.0
        self._config = config
        self._rank = rank
        self._world_size = world_size
        self._quarantine = quarantine or Quarantine.of(split, config.max_bad_fraction)
        self._device = device
        self._collate = Collate(tokenizer, config, pin_memory=device.type == "cuda")
        self._transform = DeviceTransform.of(config, split.manifest)

    def _batches(self, plans: Iterator[_Plan]) -> Generator[Batch]:
        """The batches of `plans` in turn; `wait_seconds` grows by what the consumer waited."""
        stream = prefetch_in_order(
            plans,
            self._load,
            threads=self._config.decode_threads or min(16, available_cores()),
            prefetch_batches=self._config.prefetch_batches,
        )
        with closing(stream):
            while True:
                started = time.perf_counter()
                host = next(stream, None)
                self.wait_seconds += time.perf_counter() - started
                if host is None:
                    return
                yield self._transform(host, self._device, train=self._augmented)

    @abstractmethod
    def _read(self, row: _Row) -> LoadedSample:
        """The sample at the row's position. Raises BadSampleError."""

    def _load(self, planned: _Row) -> LoadedRow:
        row = planned
        for attempt in range(_REPLACEMENT_ATTEMPTS):
            try:
                sample = self._read(row)
            except BadSampleError as error:
                self._quarantine.add(error, samples_consumed=row.samples_consumed)
                position = replacement_position(
                    seed=self.seed,
                    epoch=row.epoch,
                    position=planned.position,
                    attempt=attempt,
                    samples=len(self.split),
                )
                row = replace(row, position=position)
            else:
                # A stand-in trains like any other sample, but no evaluation counts it.
                real = row.real and (attempt == 0 or self._augmented)
                return LoadedRow(sample, real=real, replaced=attempt > 0)
        raise InputError(
            f"{self.split.folder}: {_REPLACEMENT_ATTEMPTS} samples of split {self.split.split!r} "
            "in a row cannot be read: run `python -m data_shards verify` and build the damaged "
            "shards again"
        )


class TrainingLoader(_Loader):
    """One rank's training batches, epoch after epoch, from any count of samples consumed.

    `seed` fixes the order and, of each sample in each epoch, the images and their augmentation. A
    batch's `micro_batches` equal parts are this rank's shares of the global batch's equal parts.
    Raises InputError too when the split is smaller than the global batch.
    """

    _augmented = True

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
        device: torch.device = _HOST,
    ) -> None:
        super().__init__(
            split,
            tokenizer,
            config,
            rank=rank,
            world_size=world_size,
            quarantine=quarantine,
            device=device,
        )
        self.seed = seed
        self.order = GlobalOrder(
            shard_sizes=split.shard_sizes,
            global_batch=config.global_batch,
            seed=seed,
            shuffle_buffer_shards=config.shuffle_buffer_shards,
        )
        self._micro_batches = micro_batches

    @property
    def global_batch(self) -> int:
        """Samples of a step, over all ranks."""
        return self.order.global_batch

    @property
    def steps_per_epoch(self) -> int:
        """Global batches an epoch."""
        return self.order.steps_per_epoch

    def batches(self, samples_consumed: int = 0) -> Generator[Batch]:
        """Batches without end, from the one after `samples_consumed` on.

        Closing the iterator, or any exception, ends the threads. Raises InputError when too many
        samples are unreadable.
        """
        return self._batches(self._plans(samples_consumed))

    def _plans(self, samples_consumed: int) -> Iterator[_Plan]:
        first_epoch, first_step = self.order.epoch_and_step(samples_consumed)
        for epoch in count(first_epoch):
            positions = self.order.epoch_positions(epoch)
            for step in range(first_step, self.steps_per_epoch):
                samples_consumed += self.global_batch
                start = step * self.global_batch
                share = rank_slice(
                    positions[start : start + self.global_batch],
                    rank=self._rank,
                    world_size=self._world_size,
                    micro_batches=self._micro_batches,
                )
                rows = [_Row(epoch, int(position), samples_consumed) for position in share]
                yield rows, partial(self._collate, epoch, samples_consumed)
            first_step = 0

    def _read(self, row: _Row) -> LoadedSample:
        return load_training_sample(
            self.split, self._config, seed=self.seed, epoch=row.epoch, position=row.position
        )


class EvaluationLoader(_Loader):
    """One rank's share of a whole split in fixed global batches, in file order.

    The last global batch is filled up to a multiple of the ranks with rows whose `sample_mask` is
    False; so are rows that stand in for unreadable samples, which no evaluation counts.
    """

    _augmented = False

    def __len__(self) -> int:
        """Batches in the split, the same on every rank."""
        return -(-len(self.split) // self._config.global_batch)

    def batches(self) -> Generator[Batch]:
        """Every batch once. Raises InputError when too many samples are unreadable."""
        return self._batches(self._plans())

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
            yield rows, partial(self._collate, 0, start + real)

    def _read(self, row: _Row) -> LoadedSample:
        return load_evaluation_sample(self.split, self._config, position=row.position)
