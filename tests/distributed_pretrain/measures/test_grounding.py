"""Phrase grounding: boxes and masks on the model's square, and heat of phrases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from distributed_pretrain.evaluation.embedded import (
    EmbeddedStudies,
    embed_studies,
    ground_phrases,
)
from torch import Tensor

from data_shards.records.study import Box, ImageRecord, Report, StudyRecord
from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.data.host_batch import HostBatch, HostImages
from distributed_pretrain.measures.geometry import (
    boxes_mask,
    image_extent,
    mask_on_model_square,
    region_map_on_pixels,
)
from distributed_pretrain.methods.objective import (
    ImageEmbeddings,
    ImageTextMethod,
    Method,
    ReportEmbeddings,
)

SIZE_PX = 32
BRIGHT, DARK = "bright", "dark"


# ---- geometry


def _image(width: int, height: int) -> ImageRecord:
    return ImageRecord("a", "PA", "image0.jpg", width, height, width, height)


def _box(x: float, y: float, width: float, height: float, phrase: str = BRIGHT) -> Box:
    return Box(0, x, y, width, height, "Opacity", phrase)


def test_a_wide_image_lies_between_bands_of_padding() -> None:
    extent = image_extent(_image(width=64, height=32), SIZE_PX)
    assert extent[8:24].all()
    assert not extent[:8].any()
    assert not extent[24:].any()


def test_a_tall_image_lies_between_columns_of_padding() -> None:
    extent = image_extent(_image(width=32, height=64), SIZE_PX)
    assert torch.equal(extent, image_extent(_image(width=64, height=32), SIZE_PX).T)


def test_boxes_are_scaled_and_moved_with_their_image() -> None:
    # 128 x 64 stored pixels on 32: a quarter of the size, 8 rows of padding above.
    mask = boxes_mask([_box(16, 8, 32, 16)], _image(width=128, height=64), SIZE_PX)
    expected = torch.zeros(SIZE_PX, SIZE_PX, dtype=torch.bool)
    expected[10:14, 4:12] = True
    assert torch.equal(mask, expected)


def test_several_boxes_are_a_union() -> None:
    image = _image(SIZE_PX, SIZE_PX)
    first, second = _box(0, 0, 8, 8), _box(4, 4, 8, 8)
    union = boxes_mask([first, second], image, SIZE_PX)
    assert torch.equal(
        union, boxes_mask([first], image, SIZE_PX) | boxes_mask([second], image, SIZE_PX)
    )
    assert union.sum() == 64 + 64 - 16


def test_a_mask_of_a_box_lands_where_the_box_does() -> None:
    image = _image(width=96, height=120)
    stored = torch.zeros(120, 96, dtype=torch.uint8)
    stored[40:80, 10:70] = 255
    box = _box(10, 40, 60, 40)
    assert torch.equal(
        mask_on_model_square(stored, image, SIZE_PX), boxes_mask([box], image, SIZE_PX)
    )
    whole = mask_on_model_square(torch.ones_like(stored), image, SIZE_PX)
    assert torch.equal(whole, image_extent(image, SIZE_PX))


def test_a_crop_moves_and_enlarges_boxes_masks_and_the_extent_alike() -> None:
    # The middle 48 of 64 px on 32: two thirds of a pixel each, beginning at 8.
    image, crop = _image(width=64, height=64), 0.75
    expected = torch.zeros(SIZE_PX, SIZE_PX, dtype=torch.bool)
    expected[8:16, 4:8] = True
    box, stored = _box(14, 20, 6, 12), torch.zeros(64, 64, dtype=torch.uint8)
    stored[20:32, 14:20] = 1
    assert torch.equal(boxes_mask([box], image, SIZE_PX, crop_fraction=crop), expected)
    assert torch.equal(mask_on_model_square(stored, image, SIZE_PX, crop_fraction=crop), expected)
    assert image_extent(image, SIZE_PX, crop_fraction=crop).all()
    assert not boxes_mask([_box(0, 0, 8, 64)], image, SIZE_PX, crop_fraction=crop).any()


def test_padding_that_a_crop_leaves_is_no_image() -> None:
    # 64 x 40 stored: padding of 12 rows, 4 of which lie inside the crop of 48.
    extent = image_extent(_image(width=64, height=40), 48, crop_fraction=0.75)
    assert extent[4:44].all()
    assert not extent[:4].any()
    assert not extent[44:].any()


def test_regions_are_row_major_and_spread_over_the_image() -> None:
    spread = region_map_on_pixels(torch.arange(6.0)[None], (2, 3), SIZE_PX)[0]
    corners = spread[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.tolist() == [0, 2, 3, 5]


# ---- a whole split through a method


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


# ---- a whole split through a method


class BrightnessMethod(Method, ImageTextMethod):
    """Regions are (mean brightness, 1 - it); "bright" and "dark" are the two axes."""

    def forward(self, batch: Batch) -> Any:
        raise NotImplementedError

    def embed_images(self, batch: Batch) -> ImageEmbeddings:
        bright = self.feature_map(batch.images)[:, 0]
        regions = torch.stack([bright, 1 - bright], dim=3)
        return ImageEmbeddings(image=regions.mean((1, 2)), regions=regions)

    def embed_reports(self, report: ReportTokens) -> ReportEmbeddings:
        sentences = torch.eye(2)[report.token_ids[:, 1:-1]]
        return ReportEmbeddings(
            report=sentences.mean(1), local=sentences, local_mask=report.sentence_mask
        )

    def feature_map(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 8)


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
    lateral = ImageRecord("lateral", "L", "image1.jpg", SIZE_PX, SIZE_PX, SIZE_PX, SIZE_PX)
    report = Report("", {"findings": ""}, {"findings": (BRIGHT,)})
    return StudyRecord(
        key=key,
        patient_id=key,
        study_id=key,
        split="test",
        source="",
        licence="",
        images=(_image(SIZE_PX, SIZE_PX), lateral),
        report=report,
        labels={},
        boxes=boxes,
        masks=(),
    )


LIT = (8, 4, 12, 8)  # x, y, width, height


def _studies(*boxes: tuple[Box, ...], masked: int = 0) -> EmbeddedStudies:
    return embed_studies(BrightnessMethod(), [_filled_batch(*boxes, masked=masked)] * 2, "lovt")


def _filled_batch(*boxes: tuple[Box, ...], masked: int = 0) -> tuple[HostBatch, Batch]:
    """Studies with a bright block at LIT, then `masked` rows that only fill up the batch."""
    x, y, width, height = LIT
    records = tuple(_study(f"study-{i}", each) for i, each in enumerate(boxes))
    records += (_study("filler", (_box(*LIT),)),) * masked
    images = torch.zeros(len(records), 1, SIZE_PX, SIZE_PX)
    images[:, :, y : y + height, x : x + width] = 1
    mask = torch.arange(len(records)) < len(boxes)
    keys = tuple(record.key for record in records)
    report = _encode([[BRIGHT]] * len(records))
    host = HostBatch(
        keys=keys,
        records=records,
        frontal=HostImages(
            (images * 255).to(torch.uint8), torch.full((len(records), 2), SIZE_PX), None
        ),
        report=report,
        sample_mask=mask,
        epoch=0,
        samples_consumed=0,
        replaced=0,
    )
    return host, Batch(keys=keys, images=images, report=report, sample_mask=mask)


class BothViewsMethod(BrightnessMethod):
    """Adds to an image's embedding the brightness of its lateral, where there is one."""

    def embed_images(self, batch: Batch) -> ImageEmbeddings:
        assert batch.lateral is not None
        assert batch.lateral_mask is not None
        frontal = super().embed_images(batch)
        bright = batch.lateral.mean(dim=(1, 2, 3)) * batch.lateral_mask
        return replace(frontal, image=frontal.image + bright[:, None])


def test_a_method_may_embed_studies_by_both_views() -> None:
    host, batch = _filled_batch((), (), masked=1)
    lateral = torch.full_like(batch.images, 3.0)
    both = replace(batch, lateral=lateral, lateral_mask=torch.tensor([True, False, True]))
    plain = embed_studies(BrightnessMethod(), [(host, batch)], "lovt")
    seen = embed_studies(BothViewsMethod(), [(host, both)], "lovt")
    assert seen.joint is not None
    assert plain.joint is not None
    of_both, of_frontal = seen.joint.images, plain.joint.images
    torch.testing.assert_close(
        of_both.image - of_frontal.image, torch.tensor([[3.0, 3.0], [0.0, 0.0]])
    )
    assert torch.equal(of_both.regions, of_frontal.regions)


def test_rows_that_fill_up_a_batch_are_not_studies() -> None:
    studies = _studies((), (), masked=3)
    assert [record.key for record in studies.records] == ["study-0", "study-1"] * 2
    assert studies.joint is not None
    joint = studies.joint
    assert {len(each) for each in (joint.images.image, joint.images.regions)} == {4}
    assert len(joint.reports.report) == 4
    assert len(studies.features) == len(studies.pixels) == 4


def test_no_studies_are_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        _studies(masked=2)


def test_the_right_phrase_lights_its_box_and_the_wrong_one_the_rest() -> None:
    studies = _studies((_box(*LIT, BRIGHT), _box(*LIT, DARK)))
    grounding = ground_phrases(BrightnessMethod(), studies, _encode, torch.device("cpu"))
    assert grounding is not None
    assert grounding.phrases[:2] == (BRIGHT, DARK)
    right, wrong = grounding.contrast[:2].tolist()
    assert right > 2
    assert wrong < -2
    assert grounding.hits[:2].tolist() == [True, False]


def test_boxes_follow_what_a_cropping_evaluation_shows() -> None:
    # The middle 24 of 32 stored pixels are shown: model pixel p is stored 0.75 p + 4.
    x, y, width, height = LIT
    stored = _box(0.75 * x + 4, 0.75 * y + 4, 0.75 * width, 0.75 * height)
    method = BrightnessMethod()
    cropped = embed_studies(method, [_filled_batch((stored,))], "lovt", crop_fraction=0.75)
    whole = embed_studies(method, [_filled_batch((_box(*LIT),))], "lovt")
    ours, theirs = (
        ground_phrases(method, studies, _encode, torch.device("cpu"))
        for studies in (cropped, whole)
    )
    assert ours is not None
    assert theirs is not None
    assert ours.model_boxes[0][0] == pytest.approx(LIT)
    assert torch.equal(ours.contrast, theirs.contrast)
    assert ours.hits.all()


def test_boxes_of_one_phrase_on_one_image_are_one_union() -> None:
    x, y, width, height = LIT
    halves = (_box(x, y, width / 2, height), _box(x + width / 2, y, width / 2, height))
    device = torch.device("cpu")
    whole = ground_phrases(BrightnessMethod(), _studies((_box(*LIT),)), _encode, device)
    split = ground_phrases(BrightnessMethod(), _studies(halves), _encode, device)
    assert whole is not None
    assert split is not None
    assert torch.equal(split.contrast, whole.contrast)
    assert len(split.phrases) == 2  # one a batch


def test_only_boxes_with_a_phrase_on_the_evaluated_image_count() -> None:
    on_the_lateral = Box(1, 0, 0, 8, 8, "Opacity", BRIGHT)
    studies = _studies((_box(*LIT, phrase=""), on_the_lateral))
    assert ground_phrases(BrightnessMethod(), studies, _encode, torch.device("cpu")) is None
