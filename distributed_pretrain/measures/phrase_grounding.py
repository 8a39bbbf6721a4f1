"""Phrase grounding: does the heat of a phrase lie in its box, and is the image why it does?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_shards.records.study import Box, StudyRecord
from distributed_pretrain.batch import Batch, join_rows
from distributed_pretrain.measures.base import Context, ImageTextMeasure, real_records, real_rows
from distributed_pretrain.measures.blind_maps import BLIND, FOCAL, BlindMaps
from distributed_pretrain.measures.geometry import (
    ModelSquare,
    evaluated_image,
    region_map_on_pixels,
)
from distributed_pretrain.measures.grounding_metrics import (
    BORDER,
    CNR_GAIN,
    FOCAL_POINTING,
    GROUNDING_CNR,
    SAME_CELL_OTHER_IMAGE,
    SAME_CELL_OTHER_PHRASE,
)
from distributed_pretrain.measures.heat_maps import (
    Cells,
    Heat,
    Hits,
    PerPhrase,
    Pixels,
    contrast_to_noise,
    hottest_cells,
    mean_iou,
    on_border,
    pointing_hits,
    shares_of_cells,
)
from distributed_pretrain.methods.image_text import ImageEmbeddings, ImageTextOutputs
from distributed_pretrain.ranks import gather_objects

# Bounds the memory of their images.
_PHRASES_AT_A_TIME = 64
_BLIND_SIZE_PX = 64
_RESAMPLES = 1000


@dataclass(frozen=True)
class Phrase:
    """A phrase with its stored boxes, and the image it is looked for in.

    `sample` counts the real samples of all ranks.
    """

    sample: int
    text: str
    boxes: list[Box]
    square: ModelSquare
    image: ImageEmbeddings

    @property
    def category(self) -> str:
        """The finding that it is about."""
        return self.boxes[0].category


@dataclass(frozen=True)
class Grounded:
    """Heat maps of phrases on the squares that the model saw, and how well they meet the boxes.

    `other_heat` are those of `other_phrases`, of other findings, on the same images; NaN where
    there is none.
    """

    phrases: list[Phrase]
    heat: Heat
    contrast: PerPhrase
    hits: Hits
    other_phrases: list[str]
    other_heat: Heat


class PhraseGrounding(ImageTextMeasure):
    """Every (image, phrase) with boxes, a phrase read as a report of one sentence.

    Of whole images or of crops: those who extend it say which, and name the numbers.

    Several boxes of one phrase are a union. Beside CNR and pointing stand what tells whether they
    come of the image: maps of the training boxes, which see none (of all, of the phrase's
    category, of category, side and zone); the heat of another finding's phrase on the same image;
    how often the hottest cell stays when the phrase, or the image, is another; how often it lies on
    the border; focal findings apart from those whose place is given; and the best that the
    grid could do. A CNR alone prefers smooth maps and tells little.

    After `compute`, `grounded` has the maps; None when no study has a phrase with a box.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.grounded: Grounded | None = None
        self._phrases: list[Phrase] = []
        self._samples = 0
        self._blind = BlindMaps(_BLIND_SIZE_PX)

    def learn(self, batch: Batch, outputs: Any) -> None:
        """Keep where the boxes of training studies lie."""
        del outputs
        own = []
        for record in real_records(batch):
            square = self.square(record, _BLIND_SIZE_PX)
            for text, boxes in self.phrases_of(record, square).items():
                own.append((text, boxes, square.inside(boxes)))
        for of_rank in gather_objects(own):
            for each in of_rank:
                self._blind.add(*each)

    def update(self, batch: Batch, outputs: ImageTextOutputs) -> None:
        """Keep the images that have phrases with boxes, of all ranks."""
        images = outputs.images.map_tensors(lambda rows: real_rows(rows, batch.sample_mask))
        own: list[Phrase] = []
        for row, record in enumerate(real_records(batch)):
            square = self.square(record, batch.images.shape[-1])
            if phrases := self.phrases_of(record, square):
                image = images.rows(slice(row, row + 1)).map_tensors(Tensor.clone)
                own += [Phrase(row, text, boxes, square, image) for text, boxes in phrases.items()]
        samples = int(batch.sample_mask.sum())
        for of_rank, samples_of_rank in gather_objects((own, samples)):
            self._phrases += [replace(p, sample=self._samples + p.sample) for p in of_rank]
            self._samples += samples_of_rank

    def compute(self) -> dict[str, float]:
        """The means over phrases; empty without any."""
        phrases = self._phrases
        if not phrases:
            return {}
        size_px = phrases[0].square.size_px
        inside = torch.stack([each.square.inside(each.boxes) for each in phrases])
        valid = torch.stack([each.square.extent() for each in phrases])
        focal = torch.tensor([each.category in FOCAL for each in phrases])
        judge = _Judge(inside, valid, focal, torch.tensor([each.sample for each in phrases]))

        texts, images = [each.text for each in phrases], [each.image for each in phrases]
        cells = self._maps(texts, images)
        others = [_other_finding(phrases, i) for i in range(len(phrases))]
        strangers = [_other_image(phrases, i) for i in range(len(phrases))]
        of_other = self._maps([texts[i if j is None else j] for i, j in enumerate(others)], images)
        on_other = self._maps(texts, [images[j] for j in strangers])
        has_other = torch.tensor([each is not None for each in others])
        has_stranger = torch.tensor([i != j for i, j in enumerate(strangers)])

        heat = region_map_on_pixels(cells, size_px)
        other_heat = region_map_on_pixels(of_other, size_px)
        other_heat[~has_other] = torch.nan
        contrast = contrast_to_noise(heat, inside, valid)
        hits = pointing_hits(heat, inside, valid)
        others_said = [texts[j] if j is not None else "" for j in others]
        self.grounded = Grounded(phrases, heat, contrast, hits, others_said, other_heat)

        gain = contrast - contrast_to_noise(other_heat, inside, valid)
        hottest = hottest_cells(cells)
        figures = {
            "grounding_phrases": float(len(phrases)),
            "grounding_box_area": ((inside & valid).sum() / valid.sum()).item(),
            GROUNDING_CNR.name: contrast.mean().item(),
            "grounding_cnr_absolute": contrast.abs().mean().item(),
            "grounding_miou": mean_iou(heat, inside, valid).mean().item(),
            BORDER.name: _mean(on_border(cells)),
            SAME_CELL_OTHER_PHRASE.name: _mean(hottest == hottest_cells(of_other), has_other),
            SAME_CELL_OTHER_IMAGE.name: _mean(hottest == hottest_cells(on_other), has_stranger),
            **judge.pointing("grounding", hits),
            **judge.with_bounds(CNR_GAIN.name, gain, has_other),
            **judge.with_bounds(FOCAL_POINTING.name, hits.double(), focal),
        }
        figures |= judge.of_map("grounding_best", shares_of_cells(inside & valid, cells))
        if self._blind:
            for knowing in BLIND:
                maps = [self._blind.of(each.text, each.category, knowing) for each in phrases]
                figures |= judge.of_map(f"grounding_blind_{knowing}", torch.stack(maps))
        return {name: value for name, value in figures.items() if not math.isnan(value)}

    def square(self, record: StudyRecord, size_px: int) -> ModelSquare:
        """What a model sees of a study's image."""
        image = record.images[evaluated_image(record)]
        return ModelSquare(image, size_px, self.context.crop_fraction)

    def is_shown(self, boxes: Sequence[Box], square: ModelSquare) -> bool:
        """Whether enough of a phrase's boxes is seen to count: a pixel."""
        return bool(square.inside(boxes).any())

    def phrases_of(self, record: StudyRecord, square: ModelSquare) -> dict[str, list[Box]]:
        """The phrases with boxes that are seen in `square`, of the image that is evaluated."""
        shown = evaluated_image(record)
        found: dict[str, list[Box]] = {}
        for box in record.boxes:
            if box.phrase and box.image == shown:
                found.setdefault(box.phrase, []).append(box)
        return {text: boxes for text, boxes in found.items() if self.is_shown(boxes, square)}

    def _maps(self, texts: Sequence[str], images: Sequence[ImageEmbeddings]) -> Cells:
        assert self.context.encode is not None, "phrases are read by the run's tokenizer"
        device, maps = self.context.device, []
        for start in range(0, len(texts), _PHRASES_AT_A_TIME):
            some = slice(start, start + _PHRASES_AT_A_TIME)
            tokens = self.context.encode([[text] for text in texts[some]])
            embedded = self.method.embed_reports(tokens.to(device))
            shown = join_rows(images[some]).to(device)
            maps.append(self.method.grounding_map(embedded, shown).float().cpu())
        return torch.cat(maps)


@dataclass(frozen=True)
class _Judge:
    """Boxes of phrases on pixels, which of them are of focal findings, and whose study they are."""

    inside: Pixels
    valid: Pixels
    focal: Hits
    study: Tensor

    def pointing(self, name: str, hits: Hits) -> dict[str, float]:
        return {
            f"{name}_pointing": _mean(hits),
            f"{name}_pointing_focal": _mean(hits, self.focal),
            f"{name}_pointing_fixed": _mean(hits, ~self.focal),
        }

    def of_map(self, name: str, cells: Cells) -> dict[str, float]:
        heat = region_map_on_pixels(cells, self.inside.shape[-1])
        hits = pointing_hits(heat, self.inside, self.valid)
        pointing = self.pointing(name, hits)
        del pointing[f"{name}_pointing_fixed"]
        cnr = contrast_to_noise(heat, self.inside, self.valid).mean().item()
        return {**pointing, f"{name}_cnr": cnr}

    def with_bounds(self, name: str, values: Tensor, chosen: Hits) -> dict[str, float]:
        """The mean with the ends of its 95 % interval, by bootstrap over studies."""
        kept, study = values[chosen].numpy(), self.study[chosen].numpy()
        if not len(kept):
            return {}
        _, study = np.unique(study, return_inverse=True)
        sums, counts = np.bincount(study, kept), np.bincount(study)
        drawn = np.random.default_rng(0).integers(len(sums), size=(_RESAMPLES, len(sums)))
        means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
        low, high = np.quantile(means, (0.025, 0.975)).tolist()
        return {name: float(kept.mean()), f"{name}_low": low, f"{name}_high": high}


def _other_finding(phrases: Sequence[Phrase], i: int) -> int | None:
    """The next phrase of another study and another category, if there is any."""
    own = phrases[i]
    order = ((i + step) % len(phrases) for step in range(1, len(phrases)))
    return next(
        (
            j
            for j in order
            if phrases[j].sample != own.sample and phrases[j].category != own.category
        ),
        None,
    )


def _other_image(phrases: Sequence[Phrase], i: int) -> int:
    """The next phrase of another study, for its image; the own one where there is but one study."""
    order = ((i + step) % len(phrases) for step in range(len(phrases)))
    return next((j for j in order if phrases[j].sample != phrases[i].sample), i)


def _mean(hits: Tensor, chosen: Tensor | None = None) -> float:
    """Of the chosen ones; NaN without any."""
    return (hits if chosen is None else hits[chosen]).double().mean().item()
