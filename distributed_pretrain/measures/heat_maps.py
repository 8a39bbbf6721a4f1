"""How a heat map meets the boxes of its phrase, on the pixels that a model sees."""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

Cells: TypeAlias = Float[Tensor, "phrases rows columns"]
Heat: TypeAlias = Float[Tensor, "phrases height width"]
Pixels: TypeAlias = Bool[Tensor, "phrases height width"]
PerPhrase: TypeAlias = Float[Tensor, " phrases"]
Hits: TypeAlias = Bool[Tensor, " phrases"]
MIOU_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


def contrast_to_noise(heat: Heat, inside: Pixels, valid: Pixels) -> PerPhrase:
    """CNR of each heat map: (mean inside - mean outside) / sqrt(var inside + var outside).

    `inside` is the union of a phrase's boxes, `valid` leaves padding out of both sides; the
    variances are of the population. Signed, unlike MS-CXR's (Boecking et al. 2022, |.|), so that
    pointing away from the box counts against. A flat map scores 0, and so does a phrase whose
    box covers nothing or everything.
    """
    heat = heat.double()
    within, without = inside & valid, ~inside & valid
    mean_in, variance_in = _moments(heat, within)
    mean_out, variance_out = _moments(heat, without)
    noise = (variance_in + variance_out).sqrt()
    usable = (noise > 0) & within.any(dim=(1, 2)) & without.any(dim=(1, 2))
    return torch.where(usable, (mean_in - mean_out) / torch.where(usable, noise, 1.0), 0.0)


def mean_iou(heat: Heat, inside: Pixels, valid: Pixels) -> PerPhrase:
    """Of each map the mean IoU of (heat > t) and the union of boxes over t = 0.1, 0.2 ... 0.5.

    On the heat as it is (a cosine), as BioViL has it on MS-CXR (Boecking et al. 2022); so it hangs
    on how large a method's heats are, and methods of one kind only are told apart by it.
    """
    boxes = inside & valid
    ious = []
    for threshold in MIOU_THRESHOLDS:
        hot = (heat > threshold) & valid
        union = (hot | boxes).sum(dim=(1, 2)).clamp_min(1)
        ious.append((hot & boxes).sum(dim=(1, 2)) / union)
    return torch.stack(ious).mean(dim=0)


def pointing_hits(heat: Heat, inside: Pixels, valid: Pixels) -> PerPhrase:
    """Of each map 1 where its hottest valid pixel lies in a box of its phrase, else 0.

    Where several are as hot, the share of them that does: what drawing one of them gives on
    average. (The first of them would be the uppermost, which favours nobody but its own corner.)
    """
    heat = heat.masked_fill(~valid, -torch.inf)
    hottest = heat == heat.amax(dim=(1, 2), keepdim=True)
    hits = (hottest & inside).sum(dim=(1, 2)).double()
    return hits / hottest.sum(dim=(1, 2)).clamp_min(1)


def hottest_cells(cells: Cells) -> Int[Tensor, " phrases"]:
    """Of each map the number of its hottest cell, row by row."""
    return cells.flatten(1).argmax(dim=1)


def on_border(cells: Cells) -> Hits:
    """Whether a map's hottest cell lies on the border of the grid."""
    rows, columns = cells.shape[1:]
    hottest = hottest_cells(cells)
    row, column = hottest // columns, hottest % columns
    return (row == 0) | (row == rows - 1) | (column == 0) | (column == columns - 1)


def shares_of_cells(inside: Pixels, cells: Cells) -> Cells:
    """The share of each cell that the boxes cover: the boxes, drawn on the grid."""
    grid = (cells.shape[1], cells.shape[2])
    return F.adaptive_avg_pool2d(inside.float()[:, None], grid)[:, 0]


def _moments(heat: Heat, mask: Pixels) -> tuple[PerPhrase, PerPhrase]:
    count = mask.sum(dim=(1, 2)).clamp_min(1)
    mean = (heat * mask).sum(dim=(1, 2)) / count
    squares = (heat - mean[:, None, None]).square() * mask
    return mean, squares.sum(dim=(1, 2)) / count
