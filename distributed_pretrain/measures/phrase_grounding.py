"""Phrase grounding: does the heat of a phrase lie in its box, and is the image why it does?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from data_shards.records.study import Box, StudyRecord
from distributed_pretrain.batch import Batch, join_rows
from distributed_pretrain.data.geometry import (
    ModelSquare,
    boxes_by_phrase,
    evaluated_image,
    region_map_on_pixels,
)
from distributed_pretrain.measures.base import Context, ImageTextMeasure, real_records, real_rows
from distributed_pretrain.measures.blind_maps import BLIND, FOCAL, BlindMaps
from distributed_pretrain.measures.by_phrase import ByPhrase, interval_over_studies
from distributed_pretrain.measures.grounding_metrics import (
    BLIND_PHRASES,
    BORDER,
    BOUNDED,
    CNR_GAIN,
    ENDS,
    GROUNDING_CNR,
    MIOU,
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
    hits: PerPhrase
    other_phrases: list[str]
    other_heat: Heat


class PhraseGrounding(ImageTextMeasure):
    """Every (image, phrase) with boxes, a phrase read as a report of one sentence.

    Of whole images or of crops: those who extend it say which, and name the numbers.

    Several boxes of one phrase are a union. Beside CNR and pointing stand what tells whether they
    come of the image: maps of the boxes of all training studies, which see none (of all, of the
    phrase's category, of category, side and zone); the heat of another finding's phrase on the same
    image; how often the hottest cell stays when the phrase, or the image, is another; how often it
    lies on the border; focal findings apart from those whose place is given; and what the boxes
    themselves reach when they are drawn on the grid. A CNR alone prefers smooth maps and tells
    little.

    After `compute`, `grounded` has the maps and `by_phrase` the figures of each phrase; None when
    no study has a phrase with a box.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.grounded: Grounded | None = None
        self.by_phrase: ByPhrase | None = None
        self._phrases: list[Phrase] = []
        self._shown = list[float]()
        self._samples = 0

    def update(self, batch: Batch, outputs: ImageTextOutputs) -> None:
        """Keep the images that have phrases with boxes, of all ranks."""
        images = outputs.images.map_tensors(lambda rows: real_rows(rows, batch.sample_mask))
        own, shown = list[Phrase](), list[float]()
        for row, record in enumerate(real_records(batch)):
            square = self.square(record, batch.images.shape[-1])
            shown += map(square.share_shown, boxes_by_phrase(record).values())
            if phrases := self.phrases_of(record, square):
                image = images.rows(slice(row, row + 1)).map_tensors(Tensor.clone)
                own += [Phrase(row, text, boxes, square, image) for text, boxes in phrases.items()]
        samples = int(batch.sample_mask.sum())
        for of_rank, shown_of_rank, samples_of_rank in gather_objects((own, shown, samples)):
            self._shown += shown_of_rank
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
        judge = _Judge(inside, valid, focal)

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
        overlap = mean_iou(heat, inside, valid)
        each = {
            **judge.pointing("grounding", hits),
            GROUNDING_CNR.name: contrast,
            "grounding_cnr_absolute": contrast.abs(),
            MIOU.name: overlap,
            CNR_GAIN.name: _of(gain, has_other),
            BORDER.name: on_border(cells),
            SAME_CELL_OTHER_PHRASE.name: _of(hottest == hottest_cells(of_other), has_other),
            SAME_CELL_OTHER_IMAGE.name: _of(hottest == hottest_cells(on_other), has_stranger),
            **judge.of_map("grounding_best", shares_of_cells(inside & valid, cells)),
        }
        figures = {
            "grounding_phrases": float(len(phrases)),
            "grounding_box_area": ((inside & valid).sum() / valid.sum()).item(),
            "grounding_box_shown": fmean(self._shown),
            "grounding_cnr_absolute_by_category": _mean_of_means(contrast.abs(), phrases),
            f"{MIOU.name}_by_category": _mean_of_means(overlap, phrases),
        }
        if blind := self._blind_maps():
            figures[BLIND_PHRASES.name] = float(blind.phrases)
            for knowing in BLIND:
                maps = [blind.of(each.text, each.category, knowing) for each in phrases]
                each |= judge.of_map(f"grounding_blind_{knowing}", torch.stack(maps))
        return figures | self._means(each)

    def _means(self, each: dict[str, Tensor]) -> dict[str, float]:
        """Of the phrases' figures, by name, with the ends of the intervals of those that have any.

        NaN does not count, and what no phrase has is left out.
        """
        values = {name: figures.double().numpy() for name, figures in each.items()}
        values = {name: those for name, those in values.items() if not np.isnan(those).all()}
        study = [phrase.sample for phrase in self._phrases]
        self.by_phrase = ByPhrase(
            study=tuple(study),
            values={
                name: tuple(None if math.isnan(one) else one for one in those.tolist())
                for name, those in values.items()
            },
        )
        means = {name: float(np.nanmean(those)) for name, those in values.items()}
        for metric in BOUNDED:
            if (those := values.get(metric.name)) is not None:
                ends = interval_over_studies(those, study)
                means |= {f"{metric.name}_{end}": v for end, v in zip(ENDS, ends, strict=True)}
        return means

    def _blind_maps(self) -> BlindMaps | None:
        """Of the boxes of all training studies; None without any."""
        maps = BlindMaps(_BLIND_SIZE_PX)
        for record in self.context.boxed_training():
            square = self.square(record, _BLIND_SIZE_PX)
            for text, boxes in self.phrases_of(record, square).items():
                maps.add(text, boxes, square.inside(boxes))
        return maps if maps.phrases else None

    def square(self, record: StudyRecord, size_px: int) -> ModelSquare:
        """What a model sees of a study's image."""
        image = record.images[evaluated_image(record)]
        return ModelSquare(image, size_px, self.context.crop_fraction)

    def is_shown(self, boxes: Sequence[Box], square: ModelSquare) -> bool:
        """Whether enough of a phrase's boxes is seen to count: a pixel."""
        return bool(square.inside(boxes).any())

    def phrases_of(self, record: StudyRecord, square: ModelSquare) -> dict[str, list[Box]]:
        """The phrases with boxes that are seen in `square`, of the image that is evaluated."""
        found = boxes_by_phrase(record)
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
    """Boxes of phrases on pixels, and which of them are of focal findings."""

    inside: Pixels
    valid: Pixels
    focal: Hits

    def pointing(self, name: str, hits: PerPhrase) -> dict[str, PerPhrase]:
        return {
            f"{name}_pointing": hits,
            f"{name}_pointing_focal": _of(hits, self.focal),
            f"{name}_pointing_fixed": _of(hits, ~self.focal),
        }

    def of_map(self, name: str, cells: Cells) -> dict[str, PerPhrase]:
        heat = region_map_on_pixels(cells, self.inside.shape[-1])
        pointing = self.pointing(name, pointing_hits(heat, self.inside, self.valid))
        return {**pointing, f"{name}_cnr": contrast_to_noise(heat, self.inside, self.valid)}


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


def _mean_of_means(values: PerPhrase, phrases: Sequence[Phrase]) -> float:
    """Of the categories' means."""
    by_category: dict[str, list[float]] = {}
    for phrase, value in zip(phrases, values.tolist(), strict=True):
        by_category.setdefault(phrase.category, []).append(value)
    return fmean(map(fmean, by_category.values()))


def _of(values: Tensor, chosen: Hits) -> PerPhrase:
    """NaN where a phrase is not among the chosen ones."""
    return values.double().masked_fill(~chosen, torch.nan)
