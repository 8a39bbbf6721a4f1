"""The similarity of all images and all reports of a split, whatever a method compares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from distributed_pretrain.batch import Rows, join_rows, pad_to
from distributed_pretrain.methods.image_text import (
    ImageEmbeddings,
    ImageTextMethod,
    ReportEmbeddings,
)
from distributed_pretrain.ranks import gather_rows


@torch.no_grad()
def similarity_matrix(
    method: ImageTextMethod,
    images: Iterable[ImageEmbeddings],
    reports: Sequence[ReportEmbeddings],
    sample_masks: Iterable[Tensor],
    *,
    device: torch.device,
) -> Float[Tensor, "samples samples"]:
    """Similarities of the samples whose mask is True, on the CPU; rows are images.

    `images` and `sample_masks` are those of this rank, batch by batch; `reports` those of all
    ranks without padding rows, in the order in which the ranks' batches join. Every rank compares
    its own images with all reports, and all ranks get the whole matrix: 4 samples^2 bytes.
    """
    all_reports = join_rows(reports).to(device)
    rows = []
    for batch, mask in zip(images, sample_masks, strict=True):
        own = method.similarity(batch.to(device), all_reports).float()
        rows.append(gather_rows(own)[gather_rows(mask.to(device))].cpu())
    return torch.cat(rows)


def gather_padded(rows: Rows) -> Rows:
    """The rows of all ranks, whose second dimensions (words) may differ in length."""

    def gathered(values: Tensor) -> Tensor:
        if values.dim() > 1:
            lengths = gather_rows(torch.tensor([values.shape[1]], device=values.device))
            values = pad_to(values, (int(lengths.max()), *values.shape[2:]))
        return gather_rows(values)

    return rows.map_tensors(gathered)
