"""Which pairs of images and reports are compared at a time.

A pair costs far more memory than its score: every word and every region has a vector or a row of
its own in every pair. So pairs are compared block by block, and again in backward. Images and
reports are sorted by length, and a block is cut to its longest, which skips most of the padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class PairBlock:
    """All pairs of some images and some reports, with the positions at which any is real.

    `padded_regions` and `padded_words`: whether padding is left among those positions.
    """

    images: slice
    regions: int
    padded_regions: bool
    reports: slice
    words: int
    padded_words: bool

    @property
    def pairs(self) -> int:
        """How many pairs there are."""
        images: int = self.images.stop - self.images.start
        reports: int = self.reports.stop - self.reports.start
        return images * reports


@dataclass(frozen=True)
class SortedRows:
    """Images or reports, the longest first.

    `order` is None where they are so already; `lengths` holds the last real position of each plus
    one, `counts` how many of its positions are real, both sorted.
    """

    order: Int[Tensor, " rows"] | None
    lengths: list[int]
    counts: list[int]

    @classmethod
    def all_real(cls, rows: int, positions: int) -> SortedRows:
        """Rows without padding, as they are."""
        return cls(None, [positions] * rows, [positions] * rows)

    def sort(self, values: Tensor) -> Tensor:
        """`values` with its rows in this order."""
        return values if self.order is None else values.index_select(0, self.order)

    def unsort(self, values: Tensor, dim: int) -> Tensor:
        """`values` whose `dim` is in this order, as it was before."""
        return values if self.order is None else values.index_select(dim, self.order.argsort())

    def chunks(self, size: int) -> Iterator[tuple[slice, int, bool]]:
        """Rows, the positions that any of them needs, and whether padding is left among these.

        At most `size` rows each, and parts as equal as can be.
        """
        rows = len(self.lengths)
        parts = ceil(rows / size)
        for part in range(parts):
            chunk = slice(part * rows // parts, (part + 1) * rows // parts)
            # A row without anything real keeps one position: no dimension may be empty.
            length = max(1, self.lengths[chunk.start])
            yield chunk, length, min(self.counts[chunk]) < length


def sorted_by_length(
    mask: Bool[Tensor, "rows positions"], counts: Sequence[int] | None = None
) -> SortedRows:
    """The rows by their last real position.

    `counts` are the numbers of real positions where the host knows them, and where those come
    first; without them it waits for the device.
    """
    position = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    length = (mask * position).amax(dim=1)
    if counts is None:
        lengths, real = torch.stack([length, mask.sum(dim=1)]).tolist()
    else:
        lengths = real = list(counts)
    if lengths == sorted(lengths, reverse=True):
        return SortedRows(None, lengths, real)
    order = length.argsort(descending=True, stable=True)
    places = sorted(range(len(lengths)), key=lambda row: -lengths[row])  # the same, on the host
    return SortedRows(order, [lengths[at] for at in places], [real[at] for at in places])


def pair_blocks(
    images: SortedRows,
    reports: SortedRows,
    *,
    chunk_size: int | None,
    bytes_per_pair: int,
    block_bytes: int,
) -> list[PairBlock]:
    """Blocks of at most `chunk_size` pairs, by default as many as fill `block_bytes`.

    That is what the large tensors of a block may take together (on a CPU what its cache holds
    between the passes over them, on a GPU what keeps it busy), `bytes_per_pair` what they hold of
    one pair.
    """
    if chunk_size is None:
        chunk_size = max(1, block_bytes // max(1, bytes_per_pair))
    # As many reports as images: both sides of a matrix product should be long.
    reports_at_once = min(ceil(chunk_size**0.5), len(reports.lengths))
    images_at_once = min(chunk_size // reports_at_once, len(images.lengths))
    return [
        PairBlock(image_rows, regions, padded_regions, report_rows, words, padded_words)
        for report_rows, words, padded_words in reports.chunks(chunk_size // images_at_once)
        for image_rows, regions, padded_regions in images.chunks(images_at_once)
    ]
