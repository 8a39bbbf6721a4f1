"""Validation in the loop: every loss term and the recalls over the whole split, on all ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_shards.records.policies import TextPolicy, select_sentences
from data_shards.records.study import StudyRecord
from distributed_pretrain.batch import Batch
from distributed_pretrain.data.augmentation import DeviceTransform
from distributed_pretrain.data.host_batch import HostBatch
from distributed_pretrain.data.loader import EvaluationLoader
from distributed_pretrain.evaluation.retrieval import retrieval_metrics
from distributed_pretrain.losses.collectives import copy_from_main, gather_rows, mean_over_ranks
from distributed_pretrain.methods.base import Method, Outputs
from distributed_pretrain.telemetry.pictures import (
    region_weights_picture,
    sentence_attention_picture,
    similarity_matrix_picture,
)

PICTURED_STUDIES = 32


@dataclass(frozen=True)
class Validator:
    """Measures a method on a split: the same numbers for any number of ranks.

    Losses are means over the samples of fixed global batches in file order; the last one is
    padded and masked, so that no sample is dropped.
    """

    loader: EvaluationLoader
    transform: DeviceTransform
    device: torch.device
    autocast: Callable[[], AbstractContextManager[None]]
    text_policy: TextPolicy

    def measure(self, method: Method, *, before_batch: Callable[[], None]) -> dict[str, float]:
        """Loss terms, `image_to_report_recall_at_k` and so on, `recall_sum` (fractions)."""
        sums: dict[str, float] = {}
        images: list[Tensor] = []
        reports: list[Tensor] = []
        groups: list[int] = []
        count = 0.0
        with _evaluating(method):
            for host, batch in self._batches():
                before_batch()
                with self.autocast():
                    outputs: Outputs = method(batch)
                    terms = method.loss(outputs)
                mask = gather_rows(batch.sample_mask)
                real = float(mask.sum())
                packed = torch.stack([value.detach() for value in terms.values()])
                means = mean_over_ranks(packed).tolist()
                for name, mean in zip(terms, means, strict=True):
                    sums[name] = sums.get(name, 0.0) + mean * real
                count += real
                images.append(gather_rows(outputs.image.float())[mask].cpu())
                reports.append(gather_rows(outputs.report.float())[mask].cpu())
                hashes = torch.tensor([self._report_hash(record) for record in host.records])
                hashes = gather_rows(hashes.to(mask.device))
                groups += hashes[mask].tolist()
        losses = {name: total / count for name, total in sums.items()}
        recalls = retrieval_metrics(torch.cat(images), torch.cat(reports), groups=groups)
        metrics = losses | recalls
        # Rank 0's, to the last bit: what follows from them must be the same on every rank.
        values = torch.tensor(list(metrics.values()), dtype=torch.float64, device=self.device)
        copy_from_main([values])
        return dict(zip(metrics, values.tolist(), strict=True))

    def pictures(self, method: Method) -> dict[str, NDArray[np.uint8]]:
        """What the method sees in the first studies: similarities, region weights, attention."""
        host, batch = next(iter(self._batches()))
        rows = slice(0, min(PICTURED_STUDIES, int(batch.sample_mask.sum())))
        with _evaluating(method), self.autocast():
            outputs: Outputs = method(batch)
        images = torch.nn.functional.normalize(outputs.image[rows].float(), dim=1)
        reports = torch.nn.functional.normalize(outputs.report[rows].float(), dim=1)
        pixels = _for_display(batch.images)
        sentences = select_sentences(host.records[0].report, self.text_policy)
        sentences = sentences[: int(batch.report.sentence_mask[0].sum())]
        attention = outputs.sentence_to_region[0, : len(sentences)]
        return {
            "similarity_matrix": similarity_matrix_picture(_array(images @ reports.T)),
            "region_weights": region_weights_picture(
                pixels[:8], _array(outputs.region_weights[:8]), outputs.grid
            ),
            "sentence_attention": sentence_attention_picture(
                pixels[0], sentences, _array(attention), outputs.grid
            ),
        }

    def _report_hash(self, record: StudyRecord) -> int:
        """Equal for identical reports, on every rank; 64 bits of SHA-256."""
        text = "\n".join(select_sentences(record.report, self.text_policy))
        return int.from_bytes(sha256(text.encode()).digest()[:8], "little", signed=True)

    def _batches(self) -> Iterator[tuple[HostBatch, Batch]]:
        for host in self.loader.batches():
            yield host, self.transform(host, self.device, train=False)


@contextlib.contextmanager
def _evaluating(method: Method) -> Iterator[None]:
    was_training = method.training
    method.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        method.train(was_training)


def _for_display(images: Tensor) -> NDArray[np.float32]:
    """Each image stretched to [0, 1]: (B, H, W)."""
    pixels = images[:, 0].float()
    low = pixels.amin(dim=(1, 2), keepdim=True)
    high = pixels.amax(dim=(1, 2), keepdim=True)
    return _array((pixels - low) / (high - low).clamp_min(1e-6))


def _array(values: Tensor) -> NDArray[np.float32]:
    return values.detach().float().cpu().numpy()
