"""Weights are drawn where they belong: at their sentence or word, and as heat on the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from distributed_pretrain.batch import Batch
from distributed_pretrain.measures import attention_weights
from distributed_pretrain.measures.attention_weights import AttentionWeights
from distributed_pretrain.measures.base import Context, Picture
from distributed_pretrain.measures.weighted_reports import (
    LINE_CHARACTERS,
    WeightedReport,
    weighted_reports_picture,
)
from distributed_pretrain.methods.image_text import ImageTextMethod
from tests.distributed_pretrain.measures.test_grounding import _study
from tests.tiny.batches import pairs_of_sentences, pairs_of_words
from tests.tiny.methods import tiny_gloria, tiny_limitr, tiny_lovt

IMAGE = np.zeros((32, 32), np.float32)
HEAT = np.eye(4, dtype=np.float32)


def orange(picture: Picture) -> np.ndarray:
    """How much each row of pixels of the report's half is marked."""
    part = picture[:, picture.shape[1] // 2 :].astype(int)
    found: np.ndarray = (part[..., 0] - part[..., 2]).clip(min=0).mean(axis=1)
    return found


@pytest.mark.parametrize("as_lines", [True, False])
def test_what_weighs_most_is_marked_most(as_lines: bool) -> None:
    # A line each in either case.
    parts = [word * 10 for word in ("alpha", "omega", "delta")]
    weights = [0.1, 0.2, 0.7]
    first, last = (
        weighted_reports_picture([WeightedReport(IMAGE, HEAT, parts, each, as_lines)])
        for each in (weights[::-1], weights)
    )
    rows = np.arange(len(first))
    centres = [(orange(each) * rows).sum() / orange(each).sum() for each in (first, last)]
    assert centres[0] < centres[1]


def test_a_word_longer_than_a_line_is_cut_and_not_left_out() -> None:
    cut, whole = (
        orange(
            weighted_reports_picture(
                [WeightedReport(IMAGE, HEAT, ["x" * letters], [1.0], as_lines=False)]
            )
        ).sum()
        for letters in (3 * LINE_CHARACTERS, LINE_CHARACTERS)
    )
    assert cut == pytest.approx(whole, rel=0.05)


def test_without_weights_nothing_is_marked() -> None:
    report = WeightedReport(IMAGE, None, ["costs $5 and $7"], None, as_lines=True)
    picture = weighted_reports_picture([report, report])
    assert orange(picture).max() == 0
    assert picture.shape[0] > 2 * 200


def words() -> Batch:
    return pairs_of_words(3, laterals=(True, False, True))


def drawn(method: ImageTextMethod, monkeypatch: pytest.MonkeyPatch) -> Sequence[WeightedReport]:
    """What is drawn of three studies whose reports say more than was read."""
    batch = words() if method.compares_local else pairs_of_sentences(1, 2, 3)
    batch = replace(batch, records=tuple(_study(key, ()) for key in batch.keys))
    context = Context(objective=method, device=torch.device("cpu"))
    texts = tuple(f"s{number} b c" for number in range(3))
    monkeypatch.setattr(Context, "sentences", lambda *_: texts)
    found: list[WeightedReport] = []

    def keep(reports: Sequence[WeightedReport]) -> Picture:
        found.extend(reports)
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(attention_weights, "weighted_reports_picture", keep)
    with torch.no_grad():
        measure = AttentionWeights(context)
        measure.update(batch, method.eval()(batch))
        measure.pictures()
    return found


def test_lovt_weighs_the_sentences_that_were_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found = drawn(tiny_lovt(), monkeypatch)
    assert [list(each.parts) for each in found] == [
        [f"s{number} b c" for number in range(count)] for count in (1, 2, 3)
    ]
    for each in found:
        assert each.as_lines
        assert each.weights is not None
        assert sum(each.weights) == pytest.approx(1, abs=1e-5)
        assert each.region_weights is not None
        assert each.region_weights.sum() == pytest.approx(1, abs=1e-5)


def test_limitr_weighs_words_without_cls(monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = tiny_limitr(), words()
    found = drawn(method, monkeypatch)
    with torch.no_grad():
        weights = method.eval()(batch).reports.local_weights
    assert weights is not None
    counts = batch.report.words
    assert [len(each.parts) for each in found] == list(counts)
    for row, each in enumerate(found):
        assert not each.as_lines
        assert each.weights == pytest.approx(weights[row, 1 : 1 + counts[row]].tolist())


def test_a_method_without_weights_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(tiny_gloria(), monkeypatch) == []
