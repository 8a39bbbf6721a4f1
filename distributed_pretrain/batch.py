"""What reaches a method: images and reports on the device, with masks for all padding."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class ReportTokens:
    """Reports as token sequences `[CLS] s1 s2 ... [SEP]`.

    `sentence_index` numbers the sentence each token belongs to from 0 and is -1 for CLS, SEP
    and padding; `sentence_mask` is True for the sentences a report really has.
    """

    token_ids: Int[Tensor, "batch tokens"]
    token_mask: Bool[Tensor, "batch tokens"]
    sentence_index: Int[Tensor, "batch tokens"]
    sentence_mask: Bool[Tensor, "batch sentences"]

    def to(self, device: torch.device) -> Self:
        """The same tokens on `device`."""
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return replace(self, **moved)


@dataclass(frozen=True)
class Batch:
    """One rank's share of a global batch.

    `images` are normalised with the training split's mean and std, one channel.
    `sample_mask` is False for rows that only fill up the last batch of an evaluation.
    """

    keys: tuple[str, ...]
    images: Float[Tensor, "batch 1 height width"]
    report: ReportTokens
    sample_mask: Bool[Tensor, " batch"]

    def split(self, pieces: int) -> list[Batch]:
        """Equal consecutive parts of the rows, as many as `pieces` (1: the batch itself)."""
        if pieces == 1:
            return [self]
        rows = len(self.keys)
        assert rows % pieces == 0, f"{rows} rows cannot be cut into {pieces}"
        size = rows // pieces
        return [self._rows(slice(start, start + size)) for start in range(0, rows, size)]

    def _rows(self, rows: slice) -> Batch:
        report = self.report
        return Batch(
            keys=self.keys[rows],
            images=self.images[rows],
            report=ReportTokens(
                token_ids=report.token_ids[rows],
                token_mask=report.token_mask[rows],
                sentence_index=report.sentence_index[rows],
                sentence_mask=report.sentence_mask[rows],
            ),
            sample_mask=self.sample_mask[rows],
        )
