"""Validation in the loop: losses, recalls or AUROC over the whole split, on all ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
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
from distributed_pretrain.measures.classification import area_under_roc, auroc_metrics
from distributed_pretrain.measures.pictures import (
    region_weights_picture,
    sentence_attention_picture,
    similarity_matrix_picture,
)
from distributed_pretrain.measures.retrieval import retrieval_metrics
from distributed_pretrain.measures.similarity import gather_padded, similarity_matrix
from distributed_pretrain.methods.objective import (
    ClassifierOutputs,
    ImageEmbeddings,
    JointOutputs,
    JointSpace,
    Method,
    ReportEmbeddings,
)
from distributed_pretrain.ranks import copy_from_main, gather_rows, mean_over_ranks

PICTURED_STUDIES = 32


@dataclass(frozen=True)
class Validator:
    """Measures a method on a split: the same numbers for any number of ranks.

    Losses are means over the samples of fixed global batches in file order; the last one is
    padded and masked, so that no sample is dropped. Only a term that a method keeps within a rank
    (`external_negatives: local`) depends on how many there are.
    """

    loader: EvaluationLoader
    transform: DeviceTransform
    device: torch.device
    autocast: Callable[[], AbstractContextManager[None]]
    text_policy: TextPolicy
    labels: tuple[str, ...] = ()

    def measure(self, method: Method, *, before_batch: Callable[[], None]) -> dict[str, float]:
        """Loss terms; of a joint space the recalls, `recall_sum` too, of a classifier the AUROC.

        Recalls and AUROC are fractions.
        """
        sums: dict[str, float] = {}
        retrieval, classification = _Retrieval(), _Classification(self.labels)
        count = 0.0
        with _evaluating(method):
            for host, batch in self._batches():
                before_batch()
                with self.autocast():
                    outputs = method(batch)
                    terms = method.loss(outputs)
                mask = gather_rows(batch.sample_mask)
                real = float(mask.sum())
                packed = torch.stack([value.detach() for value in terms.values()])
                means = mean_over_ranks(packed).tolist()
                for name, mean in zip(terms, means, strict=True):
                    sums[name] = sums.get(name, 0.0) + mean * real
                count += real
                if isinstance(outputs, JointOutputs):
                    hashes = [self._report_hash(record) for record in host.records]
                    retrieval.add(method, outputs, batch.sample_mask, hashes)
                elif isinstance(outputs, ClassifierOutputs):
                    classification.add(outputs)
            losses = {name: total / count for name, total in sums.items()}
            with self.autocast():
                metrics = losses | retrieval.metrics(method, self.device) | classification.metrics()
        # Rank 0's, to the last bit: what follows from them must be the same on every rank.
        values = torch.tensor(list(metrics.values()), dtype=torch.float64, device=self.device)
        copy_from_main([values])
        return dict(zip(metrics, values.tolist(), strict=True))

    def pictures(self, method: Method) -> dict[str, NDArray[np.uint8]]:
        """What a joint space sees in the first studies: similarities, region weights, attention."""
        if not isinstance(method, JointSpace):
            return {}
        host, batch = next(iter(self._batches()))
        with _evaluating(method), self.autocast():
            outputs: JointOutputs = method(batch)
            first = slice(0, min(PICTURED_STUDIES, int(batch.sample_mask.sum())))
            similarity = method.similarity(outputs.images.rows(first), outputs.reports.rows(first))
        pixels = _for_display(batch.images)
        pictures = {"similarity_matrix": similarity_matrix_picture(_array(similarity))}
        grid = (outputs.images.regions.shape[1], outputs.images.regions.shape[2])
        if outputs.images.region_weights is not None:
            weights = outputs.images.region_weights[:8].flatten(1)
            pictures["region_weights"] = region_weights_picture(pixels[:8], _array(weights), grid)
        if outputs.sentence_to_region is not None:
            sentences = select_sentences(host.records[0].report, self.text_policy)
            sentences = sentences[: int(batch.report.sentence_mask[0].sum())]
            attention = outputs.sentence_to_region[0, : len(sentences)].flatten(1)
            pictures["sentence_attention"] = sentence_attention_picture(
                pixels[0], sentences, _array(attention), grid
            )
        return pictures

    def _report_hash(self, record: StudyRecord) -> int:
        """Equal for identical reports, on every rank; 64 bits of SHA-256."""
        text = "\n".join(select_sentences(record.report, self.text_policy))
        return int.from_bytes(sha256(text.encode()).digest()[:8], "little", signed=True)

    def _batches(self) -> Iterator[tuple[HostBatch, Batch]]:
        for host in self.loader.batches():
            yield host, self.transform(host, self.device, train=False)


@dataclass
class _Retrieval:
    """Embeddings of a split: this rank's images, and the reports of all ranks."""

    images: list[ImageEmbeddings] = field(default_factory=list)
    masks: list[Tensor] = field(default_factory=list)
    reports: list[ReportEmbeddings] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)

    def add(
        self, method: Method, outputs: JointOutputs, sample_mask: Tensor, hashes: list[int]
    ) -> None:
        """One batch; `hashes` are the same for identical reports."""
        images, reports = outputs.images, outputs.reports
        if not (isinstance(method, JointSpace) and method.compares_parts):
            images, reports = images.whole(), reports.whole()
        mask = gather_rows(sample_mask)
        of_all = gather_padded(reports).map_tensors(lambda rows: rows[mask].cpu())
        self.images.append(images.map_tensors(Tensor.cpu))
        self.masks.append(sample_mask.cpu())
        self.reports.append(of_all)
        self.groups += gather_rows(torch.tensor(hashes).to(mask.device))[mask].tolist()

    def metrics(self, method: Method, device: torch.device) -> dict[str, float]:
        """The recalls over the whole split; empty without batches."""
        if not self.images:
            return {}
        assert isinstance(method, JointSpace), "JointOutputs come from a JointSpace"
        similarity = similarity_matrix(method, self.images, self.reports, self.masks, device=device)
        return retrieval_metrics(similarity, groups=self.groups)


@dataclass
class _Classification:
    """Predictions of all ranks for a split."""

    names: tuple[str, ...]
    logits: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)

    def add(self, outputs: ClassifierOutputs) -> None:
        mask = gather_rows(outputs.sample_mask)
        self.logits.append(gather_rows(outputs.logits.float())[mask].cpu())
        self.labels.append(gather_rows(outputs.labels)[mask].cpu())

    def metrics(self) -> dict[str, float]:
        """The AUROC of each label that has positives and negatives, and their mean."""
        if not self.logits:
            return {}
        areas = area_under_roc(torch.cat(self.logits), torch.cat(self.labels))
        return auroc_metrics(areas, self.names)


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
