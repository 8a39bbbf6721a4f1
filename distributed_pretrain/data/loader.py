"""Batches on the device for training and evaluation, read and decoded ahead."""

from __future__ import annotations

import math
import time
from abc import ABC
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from data_shards.errors import InputError
from data_shards.files.json_lines import JsonLines, rank_writer
from data_shards.processes import available_cores
from distributed_pretrain.batch import Batch
from distributed_pretrain.data.augmentation import DeviceTransform
from distributed_pretrain.data.host_batch import HostBatch, collate
from distributed_pretrain.data.loader_processes import batches_apart
from distributed_pretrain.data.loader_threads import Plan, batches_by_threads
from distributed_pretrain.data.masks_and_boxes import check_drawn
from distributed_pretrain.data.order import GlobalOrder, check_world_size
from distributed_pretrain.data.quarantine import (
    BadSampleError,
    Quarantine,
    replacement_position,
)
from distributed_pretrain.data.sample import LoadedSample, load_samples
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import ShardSplit, check_labels
from distributed_pretrain.data.shards_ahead import shards_ahead
from distributed_pretrain.data.share import ALONE, EVERY, HOST, Share, Turn
from distributed_pretrain.data.tokenization import ReportTokenizer

_REPLACEMENT_ATTEMPTS = 100
# Of one process by default: they share its interpreter.
_MOST_THREADS = 16


@dataclass(eq=False)
class _Loader(ABC):
    """What training and evaluation share: rows planned, loaded ahead, joined, and transformed.

    Unreadable samples are counted, and named in `quarantine` where there is one. Raises InputError
    when the ranks do not divide the global batch, or the split lacks a label.
    """

    split: ShardSplit
    tokenizer: ReportTokenizer
    config: DataConfig
    share: Share = ALONE
    _: KW_ONLY
    seed: int = 0
    quarantine: JsonLines | None = None
    _augmented: ClassVar[bool]

    def __post_init__(self) -> None:
        split, config, share = self.split, self.config, self.share
        check_world_size(config.global_batch, share.world_size)
        check_labels(split, config.labels)
        check_drawn(split, config)
        self.wait_seconds = 0.0
        self._unreadable = Quarantine(
            split.split, len(split), config.max_bad_fraction, self.quarantine, self._writer()
        )
        self._on_gpu = share.device.type == "cuda"
        self._side = torch.cuda.Stream(share.device) if self._on_gpu else None
        statistics = (split.manifest.pixel_mean, split.manifest.pixel_std)
        mean, std = config.mean_and_std(statistics)
        self._transform = DeviceTransform(
            config.augmentation, image_size_px=config.image_size_px, pixel_mean=mean, pixel_std=std
        )

    def _batches(self, hosts: Generator[HostBatch]) -> Generator[Batch]:
        """On the device, and transformed; `wait_seconds` grows by what the consumer waited."""
        with closing(hosts) as stream:
            while True:
                started = time.perf_counter()
                host = next(stream, None)
                self.wait_seconds += time.perf_counter() - started
                if host is None:
                    return
                yield self._on_device(host)

    def _on_device(self, host: HostBatch) -> Batch:
        """Of a GPU on a stream beside that of the step, which may be still at the one before."""
        if self._side is None:
            return self._transform(host, self.share.device)
        step = torch.cuda.current_stream(self.share.device)
        with torch.cuda.stream(self._side):
            batch = self._transform(host, self.share.device)
        step.wait_stream(self._side)
        # Its memory is used again only after what the step does with it.
        batch.map_tensors(lambda tensor: tensor.record_stream(step))
        return batch

    def _host_batches(
        self, plans: Iterator[Plan], *, batches: int | None = None
    ) -> Generator[HostBatch]:
        """The same before the transform, made by threads at most `prefetch_batches` ahead.

        `batches` is how many there are, if they end.
        """
        # Page-locked memory belongs to a thread's GPU, which is the first one unless it is told.
        own_gpu = partial(torch.cuda.set_device, self.share.device) if self._on_gpu else None
        ahead = self.config.prefetch_batches
        return batches_by_threads(
            plans,
            load=self._load,
            join=self._join,
            threads=self._threads(),
            ahead=min(ahead, batches or ahead),
            start_thread=own_gpu,
        )

    def _join(self, samples: Sequence[LoadedSample], plan: Plan) -> HostBatch:
        host = collate(
            samples,
            tokenizer=self.tokenizer,
            config=self.config,
            epoch=plan.epoch,
            samples_consumed=plan.samples_consumed,
            with_records=not self._augmented,
        )
        return host.pinned() if self._on_gpu else host

    def _threads(self, processes: int = 1) -> int:
        """Of all processes together."""
        return self.config.decode_threads or min(_MOST_THREADS * processes, available_cores())

    def _writer(self) -> str:
        """Of this loader's lines among those of all ranks."""
        return rank_writer(self.share.rank)

    def _load(self, wanted: Sequence[int], plan: Plan) -> list[LoadedSample]:
        found = self._read([min(each, len(self.split) - 1) for each in wanted], plan)
        return [self._usable(*each, plan) for each in zip(wanted, found, strict=True)]

    def _read(self, positions: Sequence[int], plan: Plan) -> list[LoadedSample | BadSampleError]:
        epoch = plan.epoch if self._augmented else None
        return load_samples(self.split, self.config, positions, seed=self.seed, epoch=epoch)

    def _usable(
        self, wanted: int, found: LoadedSample | BadSampleError, plan: Plan
    ) -> LoadedSample:
        """What was found at a position, or what stands in for it."""
        samples = len(self.split)
        for attempt in range(_REPLACEMENT_ATTEMPTS):
            if isinstance(found, LoadedSample):
                # A stand-in trains like any other sample, but no evaluation counts it.
                real = wanted < samples and (attempt == 0 or self._augmented)
                if real and attempt == 0:
                    return found  # nearly all: a copy takes as long as all that is drawn for it
                return replace(found, real=real, replaced=attempt > 0)
            self._unreadable.add(found, samples_consumed=plan.samples_consumed)
            state = (self.seed, plan.epoch, min(wanted, samples - 1), attempt)
            [found] = self._read([replacement_position(state, samples=samples)], plan)
        raise InputError(
            f"{self.split.files}: {_REPLACEMENT_ATTEMPTS} samples of split {self.split.split!r} "
            "in a row cannot be read: run `python -m data_shards verify` and build the damaged "
            "shards again"
        )


@dataclass(eq=False)
class TrainingLoader(_Loader):
    """One rank's training batches, epoch after epoch, from any count of samples consumed.

    `seed` fixes the order and, of each sample in each epoch, the images and their augmentation. A
    batch's `micro_batches` equal parts are this rank's shares of the global batch's equal parts.
    It makes the batches whose `turn` it is, where several processes make a rank's.
    Raises InputError too when the split is smaller than the global batch.
    """

    _augmented = True
    micro_batches: int = field(default=1, kw_only=True)
    turn: Turn = field(default=EVERY, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes, config = self.split.shard_sizes, self.config
        self.order = GlobalOrder(
            sizes, config.global_batch, self.seed, config.shuffle_buffer_shards
        )
        # A window of shuffled shards, and the next, whose batches are prefetched.
        self.split.hold_shards(2 * config.shuffle_buffer_shards)

    def batches(self, samples_consumed: int = 0) -> Generator[Batch]:
        """Batches without end, from the one after `samples_consumed` on.

        Closing the iterator, or any exception, ends the threads, and their process if they have
        one. Raises InputError when too many samples are unreadable.
        """
        return self._batches(self.host_batches(samples_consumed))

    def host_batches(self, samples_consumed: int = 0) -> Generator[HostBatch]:
        """The same before the transform."""
        processes = self.config.loader_processes
        if processes is None:
            processes = int(self._on_gpu)
        if not processes:
            return self._host_batches(self.turn.among(self._plans(samples_consumed)))
        assert self.turn == EVERY, "turns are given here"
        ahead = self.config.prefetch_batches
        parts = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        parts["share"] = replace(self.share, device=HOST)
        changes = {
            "loader_processes": 0,
            "decode_threads": max(1, self._threads(processes) // processes),
            # One ready and one being made, where so many are asked for.
            "prefetch_batches": max(min(2, ahead), math.ceil(ahead / processes)),
        }
        parts["config"] = self.config.model_copy(update=changes)
        turns = [Turn(number, processes) for number in range(processes)]
        there = [
            partial(_batches_of_another, type(self), parts | {"turn": turn}, samples_consumed)
            for turn in turns
        ]
        return batches_apart(there, self.share.device)

    def _writer(self) -> str:
        number = self.turn.number
        return f"rank{self.share.rank}-process{number}" if number else super()._writer()

    def _plans(self, consumed: int) -> Iterator[Plan]:
        with shards_ahead(self.split, self.order, self.config, consumed) as ahead:
            for batch in self.order.batches(consumed):
                if ahead is not None:
                    ahead.reach(batch.samples_consumed - self.config.global_batch)
                share = self.share.of(batch.positions, micro_batches=self.micro_batches)
                yield Plan(share.tolist(), batch.samples_consumed, batch.epoch)


def _batches_of_another(
    kind: type[TrainingLoader], parts: dict[str, Any], samples_consumed: int
) -> Generator[HostBatch]:
    """The host batches of a loader that is made of these parts, where this is called."""
    return kind(**parts).host_batches(samples_consumed)


class EvaluationLoader(_Loader):
    """One rank's share of a whole split in fixed global batches, in file order.

    The last global batch is filled up to a multiple of the ranks with rows whose `sample_mask` is
    False; so are rows that stand in for unreadable samples, which no evaluation counts.
    """

    _augmented = False

    def __len__(self) -> int:
        """Batches in the split, the same on every rank."""
        return -(-len(self.split) // self.config.global_batch)

    def batches(self) -> Generator[Batch]:
        """Every batch once. Raises InputError when too many samples are unreadable."""
        return self._batches(self._host_batches(self._plans(), batches=len(self)))

    def batch_of(self, positions: Sequence[int]) -> Batch:
        """The samples at these positions of the split, for this process alone."""
        host = self._host_batches(iter([Plan(list(positions), 0)]), batches=1)
        with closing(self._batches(host)) as found:
            return next(found)

    def _plans(self) -> Iterator[Plan]:
        for start in range(0, len(self.split), self.config.global_batch):
            end = min(start + self.config.global_batch, len(self.split))
            padded = np.arange(start, end + (start - end) % self.share.world_size)
            yield Plan(self.share.of(padded).tolist(), end)
