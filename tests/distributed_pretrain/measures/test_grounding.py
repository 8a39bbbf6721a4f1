"""Phrase grounding: how the heat of phrases meets their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data_shards.records.study import Box, ImageRecord, Report, StudyRecord
from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.measures.base import Context
from distributed_pretrain.measures.grounding import Grounding
from distributed_pretrain.methods.image_text import (
    ImageEmbeddings,
    ImageTextMethod,
    ImageTextOutputs,
    ReportEmbeddings,
    of_real_samples,
)

SIZE_PX = 32
BRIGHT, DARK = "bright", "dark"
LIT = (8, 4, 12, 8)  # x, y, width, height


def test_by_default_the_heat_of_a_region_is_its_cosine_with_the_phrase_of_its_own_image() -> None:
    generator = torch.Generator().manual_seed(0)
    phrase = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    regions = torch.randn(3, 4, 8, generator=generator, dtype=torch.float64)
    heat = (
        BrightnessMethod()
        .grounding_map(
            ReportEmbeddings(
                report=3 * phrase, local=phrase[:, None], local_mask=torch.ones(3, 1).bool()
            ),
            ImageEmbeddings(image=regions[:, 0], regions=0.2 * regions.unflatten(1, (2, 2))),
        )
        .flatten(1)
    )
    for i in range(3):
        for j in range(4):
            cosine = torch.cosine_similarity(phrase[i], regions[i, j], dim=0)
            assert heat[i, j].item() == pytest.approx(cosine.item())


class BrightnessMethod(ImageTextMethod):
    """Regions are (mean brightness, 1 - it); "bright" and "dark" are the two axes."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, batch: Batch) -> ImageTextOutputs:
        return ImageTextOutputs(
            sample_mask=batch.sample_mask,
            images=self.embed_images(batch),
            reports=self.embed_reports(batch.report),
        )

    def embed_images(self, batch: Batch) -> ImageEmbeddings:
        bright = nn.functional.adaptive_avg_pool2d(batch.images, 8)[:, 0]
        regions = torch.stack([bright, 1 - bright], dim=3)
        return ImageEmbeddings(image=regions.mean((1, 2)), regions=regions)

    def embed_reports(
        self, report: ReportTokens, sample_mask: Tensor | None = None
    ) -> ReportEmbeddings:
        sentences = torch.eye(2)[report.token_ids[:, 1:-1]]
        return ReportEmbeddings(
            report=sentences.mean(1),
            local=sentences,
            local_mask=of_real_samples(report.sentence_mask, sample_mask),
        )


def _encode(reports: Sequence[Sequence[str]]) -> ReportTokens:
    """One token a sentence: 0 for "bright", 1 for "dark"; all reports equally long."""
    words = torch.tensor([[(BRIGHT, DARK).index(each) for each in report] for report in reports])
    edge = torch.full((len(reports), 1), 9)
    token_ids = torch.cat([edge, words, edge], dim=1)
    sentence_index = torch.cat(
        [-edge // 9, torch.arange(words.shape[1]) + 0 * words, -edge // 9], 1
    )
    real = torch.ones_like(token_ids, dtype=torch.bool)
    sentence_mask = torch.ones_like(words, dtype=torch.bool)
    return ReportTokens(token_ids, real, sentence_index, sentence_mask, word_index=sentence_index)


def _study(key: str, boxes: tuple[Box, ...]) -> StudyRecord:
    frontal = ImageRecord("a", "PA", "image0.jpg", SIZE_PX, SIZE_PX, SIZE_PX, SIZE_PX)
    lateral = ImageRecord("lateral", "L", "image1.jpg", SIZE_PX, SIZE_PX, SIZE_PX, SIZE_PX)
    report = Report("", {"findings": ""}, {"findings": (BRIGHT,)})
    return StudyRecord(
        key=key,
        patient_id=key,
        study_id=key,
        split="test",
        source="",
        licence="",
        images=(frontal, lateral),
        report=report,
        labels={},
        boxes=boxes,
        masks=(),
    )


def _box(
    x: float, y: float, width: float, height: float, phrase: str = BRIGHT, of: str = "Opacity"
) -> Box:
    return Box(0, x, y, width, height, of, phrase)


def _batch(*boxes: tuple[Box, ...], masked: int = 0) -> Batch:
    """Studies with a bright block at LIT, then `masked` rows that only fill up the batch."""
    x, y, width, height = LIT
    records = tuple(_study(f"study-{i}", each) for i, each in enumerate(boxes))
    records += (_study("filler", (_box(*LIT),)),) * masked
    images = torch.zeros(len(records), 1, SIZE_PX, SIZE_PX)
    images[:, :, y : y + height, x : x + width] = 1
    return Batch(
        keys=tuple(record.key for record in records),
        images=images,
        report=_encode([[BRIGHT]] * len(records)),
        sample_mask=torch.arange(len(records)) < len(boxes),
        records=records,
    )


def grounding(*batches: Batch, **context: Any) -> tuple[Grounding, dict[str, float]]:
    """The measure after these batches, and its numbers."""
    return grounded_after([], *batches, **context)


def grounded_after(
    training: Sequence[Batch], *batches: Batch, **context: Any
) -> tuple[Grounding, dict[str, float]]:
    """The same, where the studies of `training` are the training studies."""
    method = BrightnessMethod()
    measure = Grounding(
        Context(
            objective=method,
            device=torch.device("cpu"),
            encode=_encode,
            boxed_training=lambda: [each for batch in training for each in batch.records],
            **context,
        )
    )
    for batch in batches:
        measure.update(batch, method(batch))
    return measure, measure.compute()


def test_rows_that_fill_up_a_batch_are_not_studies() -> None:
    lit = (_box(*LIT),)
    measure, metrics = grounding(*[_batch(lit, (), lit, masked=3)] * 2)
    assert metrics["grounding_phrases"] == 4
    assert measure.grounded is not None
    assert [each.sample for each in measure.grounded.phrases] == [0, 2, 3, 5]


def test_the_right_phrase_lights_its_box_and_the_wrong_one_the_rest() -> None:
    measure, metrics = grounding(_batch((_box(*LIT, BRIGHT), _box(*LIT, DARK))))
    assert measure.grounded is not None
    assert [each.text for each in measure.grounded.phrases] == [BRIGHT, DARK]
    right, wrong = measure.grounded.contrast.tolist()
    assert right > 2
    assert wrong < -2
    assert measure.grounded.hits.tolist() == [True, False]
    assert metrics["grounding_cnr"] == pytest.approx((right + wrong) / 2)
    assert metrics["grounding_pointing"] == 0.5


def test_boxes_follow_what_a_cropping_evaluation_shows() -> None:
    # The middle 24 of 32 stored pixels are shown: model pixel p is stored 0.75 p + 4.
    x, y, width, height = LIT
    stored = _box(0.75 * x + 4, 0.75 * y + 4, 0.75 * width, 0.75 * height)
    cropped, _ = grounding(_batch((stored,)), crop_fraction=0.75)
    whole, _ = grounding(_batch((_box(*LIT),)))
    ours, theirs = cropped.grounded, whole.grounded
    assert ours is not None
    assert theirs is not None
    (phrase,) = ours.phrases
    assert phrase.square.box(phrase.boxes[0]) == pytest.approx(LIT)
    assert torch.equal(ours.contrast, theirs.contrast)
    assert ours.hits.all()


def test_boxes_of_one_phrase_on_one_image_are_one_union() -> None:
    x, y, width, height = LIT
    halves = (_box(x, y, width / 2, height), _box(x + width / 2, y, width / 2, height))
    whole, split = (grounding(_batch(boxes))[0].grounded for boxes in ((_box(*LIT),), halves))
    assert whole is not None
    assert split is not None
    assert torch.equal(split.contrast, whole.contrast)
    assert len(split.phrases) == 1


def test_only_boxes_with_a_phrase_on_the_evaluated_image_count() -> None:
    on_the_lateral = Box(1, 0, 0, 8, 8, "Opacity", BRIGHT)
    measure, metrics = grounding(_batch((_box(*LIT, phrase=""), on_the_lateral)))
    assert measure.grounded is None
    assert metrics == {}


def test_a_box_outside_of_what_is_shown_is_no_phrase() -> None:
    measure, metrics = grounding(_batch((_box(-9, -9, 5, 5),), (_box(40, 2, 5, 5),)))
    assert measure.grounded is None
    assert metrics == {}
    _, cropped = grounding(_batch((_box(0, 0, 3, 3), _box(*LIT, DARK))), crop_fraction=0.75)
    assert cropped["grounding_phrases"] == 1


def test_another_findings_phrase_on_the_same_image_is_the_measure_of_the_right_one() -> None:
    """Of another study and another category: its heat there is what any phrase would have had."""
    lit, other = _box(*LIT, BRIGHT, "Nodule"), _box(*LIT, DARK, "Edema")
    measure, metrics = grounding(_batch((lit,), (other,)))
    assert measure.grounded is not None
    assert measure.grounded.other_phrases == [DARK, BRIGHT]
    right, wrong = measure.grounded.contrast.tolist()
    assert metrics["grounding_cnr_gain"] == pytest.approx(((right - wrong) + (wrong - right)) / 2)
    assert metrics["grounding_same_cell_other_phrase"] == 0
    assert metrics["grounding_same_cell_other_image"] == 1  # both images are the same
    # Two of one category, or of one study, tell nothing of each other.
    for batch in (_batch((lit,), (lit,)), _batch((lit, other))):
        _, alone = grounding(batch)
        assert "grounding_cnr_gain" not in alone
        assert "grounding_same_cell_other_phrase" not in alone


def test_focal_findings_are_told_apart_from_those_of_fixed_place() -> None:
    focal, fixed = _box(*LIT, BRIGHT, "Nodule"), _box(*LIT, DARK, "Edema")
    _, metrics = grounding(_batch((focal,), (fixed,)))
    assert metrics["grounding_pointing_focal"] == 1
    assert metrics["grounding_pointing_fixed"] == 0
    assert metrics["grounding_pointing"] == 0.5
    assert metrics["grounding_box_area"] == pytest.approx(LIT[2] * LIT[3] / SIZE_PX**2)


def test_the_border_is_where_the_wrong_phrase_is_hottest() -> None:
    _, metrics = grounding(_batch((_box(*LIT, BRIGHT, "Nodule"),), (_box(*LIT, DARK, "Edema"),)))
    assert metrics["grounding_border"] == 0.5


def test_blind_maps_are_the_means_of_training_boxes() -> None:
    right, elsewhere = _box(*LIT, BRIGHT, "Nodule"), _box(0, 24, 8, 8, DARK, "Edema")
    training = _batch((right,), (elsewhere,), (elsewhere,))
    _, metrics = grounded_after([training], _batch((right,), (elsewhere,)))
    # Most training boxes lie elsewhere; those of the category lie where the phrase's box is.
    assert metrics["grounding_blind_all_pointing"] == 0.5
    assert metrics["grounding_blind_all_pointing_focal"] == 0
    assert metrics["grounding_blind_category_pointing"] == 1
    assert metrics["grounding_blind_place_pointing"] == 1
    assert metrics["grounding_best_pointing"] == 1
    assert metrics["grounding_blind_phrases"] == 3
    _, without = grounding(_batch((right,)))
    assert not any(name.startswith("grounding_blind") for name in without)


def test_intervals_are_over_studies_and_not_over_phrases() -> None:
    """A study with many phrases is drawn, or not, as a whole."""
    phrases = [(BRIGHT, "Nodule"), (DARK, "Edema")]
    boxes = [tuple(_box(*LIT, *each) for each in phrases), (_box(*LIT, BRIGHT, "Nodule"),)] * 6
    _, metrics = grounding(_batch(*boxes))
    low, high = (metrics[f"grounding_pointing_focal_{end}"] for end in ("low", "high"))
    assert low == high == metrics["grounding_pointing_focal"] == 1
    low, high = (metrics[f"grounding_cnr_gain_{end}"] for end in ("low", "high"))
    assert low < metrics["grounding_cnr_gain"] < high


def test_the_smallest_box_that_is_seen_is_a_phrase() -> None:
    """On the model's own pixels, however coarse the blind maps are."""
    wide = torch.zeros(1, 1, 256, 256)
    batch = replace(_batch((_box(8.1, 8.1, 0.2, 0.2),)), images=wide)
    _, metrics = grounding(batch)
    assert metrics["grounding_phrases"] == 1
