"""From loaded samples to one rank's batch on the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from distributed_pretrain.data.host_batch import HostBatch, HostImages
from distributed_pretrain.data.labels import label_values
from distributed_pretrain.data.sample import LoadedRow, LoadedView
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.tokenization import ReportTokenizer


class Collate:
    """Joins loaded rows to a HostBatch, with what the config asks for."""

    def __init__(self, tokenizer: ReportTokenizer, config: DataConfig, *, pin_memory: bool) -> None:
        self._tokenizer = tokenizer
        self._config = config
        self._pin_memory = pin_memory

    def __call__(self, epoch: int, samples_consumed: int, rows: list[LoadedRow]) -> HostBatch:
        """The batch of `rows`; `samples_consumed` is the global count after it."""
        samples = [row.sample for row in rows]
        frontals = [sample.frontal for sample in samples]
        laterals = [sample.lateral for sample in samples if sample.lateral is not None]
        seconds = [sample.second_view for sample in samples if sample.second_view is not None]
        labels = [label_values(sample.record, self._config.labels) for sample in samples]
        return HostBatch(
            keys=tuple(sample.record.key for sample in samples),
            records=tuple(sample.record for sample in samples),
            frontal=self._stack(frontals),
            report=self._tokenizer.encode([sample.sentences for sample in samples]),
            sample_mask=torch.tensor([row.real for row in rows]),
            epoch=epoch,
            samples_consumed=samples_consumed,
            replaced=sum(row.replaced for row in rows),
            lateral=self._stack(laterals) if laterals else None,
            lateral_mask=torch.tensor([sample.lateral is not None for sample in samples])
            if self._config.views == "frontal_lateral"
            else None,
            second_view=self._stack(seconds) if seconds else None,
            view_to_image=_maps_to_image(frontals, seconds) if seconds else None,
            labels=torch.tensor(labels) if self._config.labels else None,
        )

    def _stack(self, views: Sequence[LoadedView]) -> HostImages:
        return HostImages.stack(views, pin_memory=self._pin_memory)


def _maps_to_image(
    first: Sequence[LoadedView], second: Sequence[LoadedView]
) -> Float[Tensor, "batch views=2 2 3"]:
    pairs = zip(first, second, strict=True)
    maps = np.array([[view.to_image() for view in pair] for pair in pairs])
    return torch.from_numpy(maps).to(torch.float32)
