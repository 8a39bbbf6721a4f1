"""Phrase grounding: does the similarity of a phrase to the regions light up its box?"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def contrast_to_noise(
    heat: Float[Tensor, "phrases height width"],
    inside: Bool[Tensor, "phrases height width"],
    valid: Bool[Tensor, "phrases height width"],
) -> Float[Tensor, " phrases"]:
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


def pointing_hits(
    heat: Float[Tensor, "phrases height width"],
    inside: Bool[Tensor, "phrases height width"],
    valid: Bool[Tensor, "phrases height width"],
) -> Bool[Tensor, " phrases"]:
    """Whether the hottest valid pixel of each map lies in a box of its phrase."""
    hottest = heat.masked_fill(~valid, -torch.inf).flatten(1).argmax(dim=1)
    return inside.flatten(1).gather(1, hottest[:, None])[:, 0]


def _moments(
    heat: Float[Tensor, "phrases height width"], mask: Bool[Tensor, "phrases height width"]
) -> tuple[Float[Tensor, " phrases"], Float[Tensor, " phrases"]]:
    count = mask.sum(dim=(1, 2)).clamp_min(1)
    mean = (heat * mask).sum(dim=(1, 2)) / count
    squares = (heat - mean[:, None, None]).square() * mask
    return mean, squares.sum(dim=(1, 2)) / count
