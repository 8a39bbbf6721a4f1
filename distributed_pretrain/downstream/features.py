"""What a frozen encoder makes of every image of a split, kept for all epochs and runs.

Without augmentation an image gives the same maps each time. They are computed once, in batches of
the split's order, and batches are then rows of what was kept: labels, masks and boxes with them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from mmap import mmap
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_shards.records.study import Split
from distributed_pretrain.batch import Batch, join_rows
from distributed_pretrain.data.loader import EvaluationLoader
from distributed_pretrain.data.order import GlobalOrder
from distributed_pretrain.downstream.settings import FeaturesConfig
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.training.memory.estimate import GIB
from distributed_pretrain.training.validation import evaluating

Autocast = Callable[[], AbstractContextManager[None]]
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class KeptSplit:
    """All samples of a split as one batch on the CPU, with `features` in place of images."""

    rows: Batch

    def __len__(self) -> int:
        return len(self.rows.keys)

    def batch(self, positions: NDArray[np.int64], device: torch.device) -> Batch:
        """The samples at these positions."""
        index = torch.from_numpy(positions)

        def chosen(value: Tensor | tuple[object, ...]) -> object:
            if isinstance(value, Tensor):
                return value.index_select(0, index)
            return tuple(value[position] for position in positions) if value else ()

        batch = self.rows.map_values(chosen, (Tensor, tuple)).to(device)
        assert batch.features is not None
        features = {name: each.float() for name, each in batch.features.items()}
        return replace(batch, features=features)

    def in_order(self, size: int, device: torch.device) -> Iterator[Batch]:
        """Every sample once, in file order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.batch(np.arange(start, min(start + size, len(self))), device)


@dataclass
class KeptBatches:
    """Training's batches out of a kept split, in the order that a `TrainingLoader` has."""

    kept: KeptSplit
    order: GlobalOrder
    device: torch.device
    wait_seconds: float = 0.0

    def batches(self, samples_consumed: int = 0) -> Generator[Batch]:
        """Batches without end, from the one after `samples_consumed` on."""
        for positions, consumed, epoch in self.order.batches(samples_consumed):
            started = time.perf_counter()
            batch = self.kept.batch(positions, self.device)
            self.wait_seconds += time.perf_counter() - started
            yield replace(batch, epoch=epoch, samples_consumed=consumed)


@dataclass(frozen=True)
class FeatureStore:
    """The kept splits of a task, which a start's runs share; large ones in files in `folder`."""

    config: FeaturesConfig
    folder: Path
    _kept: dict[Split, KeptSplit | None] = field(default_factory=dict)

    def of(
        self, loader: EvaluationLoader, objective: Objective, autocast: Autocast
    ) -> KeptSplit | None:
        """The kept split of a loader, made at the first call; None where it is not to be kept.

        That is with too many bytes, or with an image that cannot be read, which each epoch would
        replace by another.
        """
        split = loader.split.split
        if split not in self._kept:
            self._kept[split] = self._make(loader, objective, autocast)
        return self._kept[split]

    @property
    def kept_bytes(self) -> int:
        """Of all features that are kept."""
        kept = (each.rows.features or {} for each in self._kept.values() if each is not None)
        return sum(each.nbytes for features in kept for each in features.values())

    def _make(
        self, loader: EvaluationLoader, objective: Objective, autocast: Autocast
    ) -> KeptSplit | None:
        split, count = loader.split.split, len(loader.split)
        parts, stored = list[Batch](), dict[str, Tensor]()
        start = 0
        with closing(loader.batches()) as batches, evaluating(objective):
            for batch in batches:
                if not all(batch.real):
                    _say(f"features of {split}: not kept, since an image cannot be read")
                    return None
                with autocast():
                    features = objective.features_of(batch)
                stored = stored or self._room(split, count, features)
                if not stored:
                    return None
                for name, each in features.items():
                    stored[name][start : start + len(each)] = each
                start += len(batch.keys)
                empty = batch.images[:, :, :0, :0]
                parts.append(replace(batch, images=empty).to(torch.device("cpu")))
        return KeptSplit(replace(join_rows(parts), features=stored))

    def _room(self, split: Split, count: int, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors for the features of so many samples, in memory or in files; none if too many."""
        dtype = _DTYPES[self.config.dtype]
        shapes = {name: (count, *each.shape[1:]) for name, each in features.items()}
        sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
        gib = sum(sizes.values()) * dtype.itemsize / GIB
        told = f"features of {count} images ({split}): {gib:.3f} GiB of {self.config.dtype}"
        if gib <= self.config.memory_gib:
            _say(f"{told}, in memory")
            return {name: torch.empty(shape, dtype=dtype) for name, shape in shapes.items()}
        if gib > self.config.disk_gib:
            _say(f"{told}: not kept, more than features.disk_gib={self.config.disk_gib:g}")
            return {}
        try:
            mapped = {name: self._mapped(sizes[name], dtype) for name in shapes}
        except OSError as error:
            _say(f"{told}: not kept, {self.folder} cannot hold them ({error.strerror})")
            return {}
        _say(f"{told}, in a file in {self.folder}")
        return {name: each.view(shapes[name]) for name, each in mapped.items()}

    def _mapped(self, size: int, dtype: torch.dtype) -> Tensor:
        """Zeros in a file without a name, which goes with this process, however that ends.

        Raises OSError where the disk has no room: later, writing would end the process by a signal.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=self.folder) as file:
            os.posix_fallocate(file.fileno(), 0, size * dtype.itemsize)
            return torch.frombuffer(mmap(file.fileno(), size * dtype.itemsize), dtype=dtype)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
