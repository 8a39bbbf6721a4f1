"""What reaches a method: images and reports on the device, with masks for all padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate, pairwise
from typing import Any, Self, TypeVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from data_shards.records.study import StudyRecord
from distributed_pretrain.packing import Packing


@dataclass(frozen=True)
class TensorTree:
    """A dataclass of tensors, dicts of them, further such dataclasses, and anything else."""

    def map_tensors(self, change: Callable[[Tensor], Any]) -> Self:
        """The same with `change` made to every tensor, in the order of the fields."""
        return self.map_values(change, (Tensor,))

    def map_values(self, change: Callable[[Any], Any], kinds: tuple[type, ...]) -> Self:
        """The same with `change` made to every value of these kinds, in the order of the fields."""

        def changed(value: Any) -> Any:
            if isinstance(value, TensorTree):
                return value.map_values(change, kinds)
            if isinstance(value, dict):
                return {name: changed(each) for name, each in value.items()}
            return change(value) if isinstance(value, kinds) else value

        return replace(self, **{f.name: changed(getattr(self, f.name)) for f in fields(self)})


@dataclass(frozen=True)
class SampleRows(TensorTree):
    """A tree whose values have one entry a sample first, or are None where not asked for.

    Those are tensors, tuples, or again `SampleRows`; others are of all samples alike.
    """

    def rows(self, chosen: slice) -> Self:
        """Some of the samples."""
        return self.map_values(lambda value: value[chosen], (Tensor, tuple))

    def to(self, device: torch.device) -> Self:
        """The same samples on `device`."""
        return self.map_tensors(lambda value: value.to(device, non_blocking=True))


Rows = TypeVar("Rows", bound=SampleRows)


@dataclass(frozen=True)
class ReportTokens(SampleRows):
    """Reports as token sequences `[CLS] s1 s2 ... [SEP]`.

    `sentence_index` numbers the sentence each token belongs to from 0, `word_index` the word:
    the pieces of one word share a number, punctuation marks are words, and no word reaches across
    sentences. Both are -1 for CLS, SEP and padding. `sentence_mask` is True for the sentences a
    report really has. `lengths` are the reports' numbers of tokens, `sentences` and `words` those
    of their parts, on the host; () where it does not know them. `packing`: how encoders are to read
    these very reports in fewer rows; None: as they are padded.
    """

    token_ids: Int[Tensor, "batch tokens"]
    token_mask: Bool[Tensor, "batch tokens"]
    sentence_index: Int[Tensor, "batch tokens"]
    sentence_mask: Bool[Tensor, "batch sentences"]
    word_index: Int[Tensor, "batch tokens"]
    lengths: tuple[int, ...] = ()
    sentences: tuple[int, ...] = ()
    words: tuple[int, ...] = ()
    packing: Packing | None = None

    def cut(self) -> ReportTokens:
        """Without the padding that all reports share, but for whole steps of 32 tokens.

        Few widths, since compilers and allocators want them; the same where lengths are unknown.
        """
        if not self.lengths:
            return self
        width = -(-max(self.lengths) // _WIDTH_STEP) * _WIDTH_STEP
        return replace(
            self,
            token_ids=self.token_ids[:, :width],
            token_mask=self.token_mask[:, :width],
            sentence_index=self.sentence_index[:, :width],
            sentence_mask=self.sentence_mask[:, : max(self.sentences)],
            word_index=self.word_index[:, :width],
        )

    def packed(self) -> ReportTokens:
        """With a `packing`; the same where lengths are unknown or there are no reports."""
        if not any(self.lengths):
            return self
        width, device = self.token_ids.shape[1], self.token_ids.device
        return replace(self, packing=Packing.of(self.lengths, width, device))

    @property
    def computed_tokens(self) -> int:
        """How many tokens an encoder computes for these reports, padding and all."""
        return self.token_ids.numel() if self.packing is None else self.packing.tokens

    def sentence_ids(self) -> Int[Tensor, "batch sentences"]:
        """`text_ids` of the sentences."""
        return text_ids(self.token_ids, self.sentence_index, self.sentence_mask.shape[1])


def text_ids(
    token_ids: Int[Tensor, "batch tokens"], part_index: Int[Tensor, "batch tokens"], parts: int
) -> Int[Tensor, "batch {parts}"]:
    """A number for each part of a report, from 0: the same for the same tokens, else another.

    `part_index` numbers the part that each token belongs to, in order, or is -1. Σ_i h(token i)
    P^i modulo 2^63, so that two texts share a number by a chance of some 2^-63; computed on the
    device, and that of a part without tokens means nothing.
    """
    powers = torch.full_like(token_ids[0], _PRIME).cumprod(dim=0)
    hashed = (token_ids + 1) * _ODD
    hashed = (hashed ^ (hashed >> 31)) * powers[place_in_part(part_index)]
    hashed = torch.where(part_index >= 0, hashed, 0)
    sums = hashed.new_zeros(len(token_ids), parts)
    return sums.scatter_add_(1, part_index.clamp(min=0), hashed) & _POSITIVE


def place_in_part(part_index: Int[Tensor, "batch tokens"]) -> Int[Tensor, "batch tokens"]:
    """How many tokens of the same number stand directly before each, from 0."""
    place = torch.arange(part_index.shape[1], device=part_index.device).expand_as(part_index)
    begins = part_index.diff(dim=1, prepend=torch.full_like(part_index[:, :1], -2)) != 0
    return place - torch.where(begins, place, 0).cummax(dim=1).values


_WIDTH_STEP = 32
# A prime and an odd number of 62 bits, drawn once.
_PRIME, _ODD, _POSITIVE = 3_916_890_016_382_381_617, 2_774_005_275_976_959_351, 2**63 - 1


@dataclass(frozen=True)
class Lateral(SampleRows):
    """A lateral view of each study.

    Where `mask` is False the study has none; its pixels are zeros and mean nothing. `present` is
    the mask on the host, () where that does not know it.
    """

    images: Float[Tensor, "batch 1 height width"]
    mask: Bool[Tensor, " batch"]
    present: tuple[bool, ...] = ()


@dataclass(frozen=True)
class SecondView(SampleRows):
    """Another augmentation of each image, and where both look (0: the first view, 1: this one).

    `view_to_image` are affine maps [A | b] from positions in the view to positions in the stored
    image's zero-padded square, both (x, y) in [0, 1] from the upper left corner. Pixel i of n lies
    at (i + 0.5) / n. Flips and rotations are in it; positions outside [0, 1] and those beside the
    image show nothing.
    """

    images: Float[Tensor, "batch 1 height width"]
    view_to_image: Float[Tensor, "batch views=2 2 3"]


@dataclass(frozen=True)
class Boxes(SampleRows):
    """The boxes of each image, filled up to the most that one has; `present` says which are real.

    `corners` are left, top, right and bottom in pixels of the model's image, perhaps beyond it;
    `category` numbers the categories that were asked for.
    """

    corners: Float[Tensor, "batch most 4"]
    category: Int[Tensor, "batch most"]
    present: Bool[Tensor, "batch most"]


@dataclass(frozen=True)
class Batch(SampleRows):
    """One rank's share of a global batch.

    `images` are frontal views, normalised, one channel. `sample_mask` is False for rows that only
    fill up the last batch of an evaluation, or stand in for unreadable samples of it. `real` is
    that on the host, () where it does not know.

    `lateral` is there with `data.views: frontal_lateral`, `second_view` with `two_augmentations`.
    With `data.labels`, `labels` has a column for each: 1 present, 0 absent, -1 uncertain (as the
    CheXpert labeler writes it) and NaN where the report does not say. With `data.masks`, `masks`
    has a channel for each, at the size of the images, and with `data.boxes` there are `boxes`.

    `features` are what a frozen encoder made of the images, by name, where that was computed
    before; `images` may then be empty.

    `records` are what the shards know of the studies, () in training. `epoch` is the one the batch
    belongs to, `samples_consumed` the global count after it, `replaced` the number of unreadable
    samples of this rank's share.
    """

    keys: tuple[str, ...]
    images: Float[Tensor, "batch 1 height width"]
    report: ReportTokens
    sample_mask: Bool[Tensor, " batch"]
    lateral: Lateral | None = None
    second_view: SecondView | None = None
    labels: Float[Tensor, "batch classes"] | None = None
    masks: Bool[Tensor, "batch categories height width"] | None = None
    boxes: Boxes | None = None
    features: dict[str, Tensor] | None = None
    records: tuple[StudyRecord, ...] = ()
    epoch: int = 0
    samples_consumed: int = 0
    replaced: int = 0
    real: tuple[bool, ...] = ()

    @property
    def encoded_mask(self) -> Bool[Tensor, " batch"]:
        """`sample_mask`; on the host where that knows it: there nobody waits to read it."""
        return torch.tensor(self.real) if self.real else self.sample_mask

    @property
    def lateral_mask(self) -> Bool[Tensor, " batch"]:
        """The same of laterals, of real samples."""
        assert self.lateral is not None
        if self.real and self.lateral.present:
            return torch.tensor(self.real) & torch.tensor(self.lateral.present)
        return self.sample_mask & self.lateral.mask

    def split(self, shares: Sequence[int], *, pack: bool = False) -> list[Batch]:
        """Consecutive parts of the rows in proportion to `shares` (of one: the batch itself).

        Each is cut to its own longest report, and its reports are packed if `pack`.
        """
        rows, parts = len(self.keys), [self]
        assert rows % sum(shares) == 0, f"{rows} rows cannot be cut into {sum(shares)}"
        if len(shares) > 1:
            ends = [rows // sum(shares) * end for end in accumulate(shares)]
            parts = [self.rows(slice(*each)) for each in pairwise([0, *ends])]
            parts = [replace(part, report=part.report.cut()) for part in parts]
        return [replace(part, report=part.report.packed()) for part in parts] if pack else parts


def join_rows(parts: Sequence[Rows]) -> Rows:
    """The samples of all `parts` one after another; their further dimensions padded with zeros.

    Every part has the same fields. Masks of padding are False.
    """
    joined: dict[str, Any] = {}
    for field in fields(parts[0]):
        values = [getattr(part, field.name) for part in parts]
        if isinstance(values[0], Tensor):
            joined[field.name] = cat_padded(values)
        elif isinstance(values[0], SampleRows):
            joined[field.name] = join_rows(values)
        elif isinstance(values[0], dict):
            joined[field.name] = {
                name: cat_padded([each[name] for each in values]) for name in values[0]
            }
        elif isinstance(values[0], tuple):
            joined[field.name] = sum(values, ())
    return replace(parts[0], **joined)


def cat_padded(tensors: Sequence[Tensor]) -> Tensor:
    """The rows of all, their further dimensions padded with zeros to the longest."""
    longest = [max(sizes) for sizes in zip(*(each.shape[1:] for each in tensors), strict=True)]
    return torch.cat([pad_to(each, longest) for each in tensors])


def pad_to(
    values: Shaped[Tensor, "batch ..."], sizes: Sequence[int]
) -> Shaped[Tensor, "batch ..."]:
    """`values` with zeros (False) behind each dimension but the first, up to `sizes`."""
    missing = [size - own for size, own in zip(sizes, values.shape[1:], strict=True)]
    widths = [width for each in reversed(missing) for width in (0, each)]
    return torch.nn.functional.pad(values, widths) if any(missing) else values
