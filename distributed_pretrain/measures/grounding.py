"""Phrase grounding: does the similarity of a phrase to the regions light up its box?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from data_shards.records.study import Box
from distributed_pretrain.batch import Batch, join_rows
from distributed_pretrain.measures.base import Context, ImageTextMeasure, real_records, real_rows
from distributed_pretrain.measures.geometry import (
    ModelSquare,
    evaluated_image,
    region_map_on_pixels,
)
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.methods.image_text import ImageEmbeddings, ImageTextOutputs

GROUNDING_CNR = Metric("grounding_cnr", "grounding CNR", unit="number")
METRICS = (
    Metric("grounding_phrases", "phrases", unit="number"),
    GROUNDING_CNR,
    Metric("grounding_pointing", "pointing game"),
)
Heat: TypeAlias = Float[Tensor, "phrases height width"]
Pixels: TypeAlias = Bool[Tensor, "phrases height width"]
PerPhrase: TypeAlias = Float[Tensor, " phrases"]
# Bounds the memory of their images.
_PHRASES_AT_A_TIME = 64


@dataclass(frozen=True)
class Phrase:
    """A phrase with its stored boxes, and the image it is looked for in.

    `sample` counts the real samples of this rank.
    """

    sample: int
    text: str
    boxes: list[Box]
    square: ModelSquare
    image: ImageEmbeddings


@dataclass(frozen=True)
class Grounded:
    """Heat maps of phrases on the squares that the model saw, and how well they meet the boxes."""

    phrases: list[Phrase]
    heat: Heat
    contrast: PerPhrase
    hits: Bool[Tensor, " phrases"]


class Grounding(ImageTextMeasure):
    """Every (image, phrase) with boxes, a phrase read as a report of one sentence.

    Several boxes of one phrase are a union. After `compute`, `grounded` has the maps; None when no
    study has a phrase with a box.
    """

    metrics = METRICS
    grounded: Grounded | None = None

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._phrases: list[Phrase] = []
        self._samples = 0

    def update(self, batch: Batch, outputs: ImageTextOutputs) -> None:
        """Keep the images that have phrases with boxes."""
        images = outputs.images.map_tensors(lambda rows: real_rows(rows, batch.sample_mask))
        for row, record in enumerate(real_records(batch)):
            shown = evaluated_image(record)
            found: dict[str, list[Box]] = {}
            for box in record.boxes:
                if box.phrase and box.image == shown:
                    found.setdefault(box.phrase, []).append(box)
            crop = self.context.crop_fraction
            square = ModelSquare(record.images[shown], batch.images.shape[-1], crop)
            image = images.rows(slice(row, row + 1))
            self._phrases += [
                Phrase(self._samples + row, text, boxes, square, image)
                for text, boxes in found.items()
            ]
        self._samples += int(batch.sample_mask.sum())

    def compute(self) -> dict[str, float]:
        """The means over phrases; empty without any."""
        phrases = self._phrases
        if not phrases:
            return {}
        starts = range(0, len(phrases), _PHRASES_AT_A_TIME)
        maps = [self._maps(phrases[start : start + _PHRASES_AT_A_TIME]) for start in starts]
        heat = region_map_on_pixels(torch.cat(maps), phrases[0].square.size_px)
        inside = torch.stack([each.square.inside(each.boxes) for each in phrases])
        valid = torch.stack([each.square.extent() for each in phrases])
        contrast = contrast_to_noise(heat, inside, valid)
        hits = pointing_hits(heat, inside, valid)
        self.grounded = Grounded(phrases, heat, contrast, hits)
        return {
            "grounding_phrases": float(len(phrases)),
            "grounding_cnr": contrast.mean().item(),
            "grounding_pointing": hits.double().mean().item(),
        }

    def _maps(self, phrases: list[Phrase]) -> Float[Tensor, "phrases rows columns"]:
        assert self.context.encode is not None, "phrases are read by the run's tokenizer"
        tokens = self.context.encode([[each.text] for each in phrases])
        embedded = self.method.embed_reports(tokens.to(self.context.device))
        images = join_rows([each.image for each in phrases]).to(self.context.device)
        return self.method.grounding_map(embedded, images).float().cpu()


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


def pointing_hits(heat: Heat, inside: Pixels, valid: Pixels) -> Bool[Tensor, " phrases"]:
    """Whether the hottest valid pixel of each map lies in a box of its phrase."""
    hottest = heat.masked_fill(~valid, -torch.inf).flatten(1).argmax(dim=1)
    return inside.flatten(1).gather(1, hottest[:, None])[:, 0]


def _moments(heat: Heat, mask: Pixels) -> tuple[PerPhrase, PerPhrase]:
    count = mask.sum(dim=(1, 2)).clamp_min(1)
    mean = (heat * mask).sum(dim=(1, 2)) / count
    squares = (heat - mean[:, None, None]).square() * mask
    return mean, squares.sum(dim=(1, 2)) / count
