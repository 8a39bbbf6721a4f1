"""Figures of phrases one by one, and what means are made of them."""

from __future__ import annotations

from statistics import fmean

import pytest

from tests.distributed_pretrain.measures.test_grounding import (
    BRIGHT,
    DARK,
    LIT,
    _batch,
    _box,
    grounding,
)


def test_each_phrase_s_figures_are_kept_beside_their_means() -> None:
    focal, fixed = _box(*LIT, BRIGHT, "Nodule"), _box(*LIT, DARK, "Edema")
    measure, metrics = grounding(_batch((focal,), (), (fixed,)))
    assert measure.by_phrase is not None
    assert measure.by_phrase.study == (0, 2)
    values = measure.by_phrase.values
    assert values["grounding_pointing"] == (1.0, 0.0)
    assert values["grounding_pointing_focal"] == (1.0, None)
    contrasts = [each for each in values["grounding_cnr"] if each is not None]
    assert metrics["grounding_cnr"] == pytest.approx(fmean(contrasts))


def test_a_mean_of_categories_is_beside_that_of_phrases() -> None:
    nodule, edema = _box(*LIT, BRIGHT, "Nodule"), _box(0, 0, 9, 9, BRIGHT, "Edema")
    measure, metrics = grounding(_batch((nodule,), (nodule,), (edema,)))
    assert measure.grounded is not None
    assert measure.by_phrase is not None
    first, _, last = measure.grounded.contrast.abs().tolist()
    assert metrics["grounding_cnr_absolute"] == pytest.approx((2 * first + last) / 3)
    assert metrics["grounding_cnr_absolute_by_category"] == pytest.approx((first + last) / 2)
    first, _, last = (each or 0.0 for each in measure.by_phrase.values["grounding_miou"])
    assert first > 1.5 * last > 0
    assert metrics["grounding_miou_by_category"] == pytest.approx((first + last) / 2)
    assert metrics["grounding_box_shown"] == 1
