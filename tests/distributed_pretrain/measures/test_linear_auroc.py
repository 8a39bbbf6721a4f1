"""The linear protocol of classification."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from data_shards.records.study import Report, StudyRecord
from distributed_pretrain.measures.base import Context
from distributed_pretrain.measures.linear import LinearSet
from distributed_pretrain.measures.linear_auroc import LinearAuroc, linear_auroc
from tests.tiny.methods import tiny_lovt

NAN = math.nan


def drawn(*, samples: int, seed: int, contrast: float = 2.0) -> LinearSet:
    """Two findings; channel 1 shows the first at `contrast` deviations, channel 3 the second."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(samples, 2, generator=generator) < 0.4).double()
    features = torch.randn(samples, 6, generator=generator, dtype=torch.float64)
    features[:, 1] += contrast * labels[:, 0]
    features[:, 3] -= contrast * labels[:, 1]
    return LinearSet(features, labels)


def test_the_linear_head_finds_what_the_features_show() -> None:
    visible = linear_auroc(drawn(samples=300, seed=1), drawn(samples=300, seed=2))
    # Two unit normals 2 deviations apart: Φ(2 / sqrt(2)) = 0.921.
    torch.testing.assert_close(
        visible, torch.full((2,), 0.921, dtype=torch.float64), atol=0.04, rtol=0
    )
    hidden = linear_auroc(
        drawn(samples=300, seed=1, contrast=0), drawn(samples=300, seed=2, contrast=0)
    )
    assert ((hidden - 0.5).abs() < 0.1).all()


def test_the_linear_protocol_has_nothing_random() -> None:
    training, test = drawn(samples=80, seed=1, contrast=1), drawn(samples=80, seed=2, contrast=1)
    first = linear_auroc(training, test)
    torch.rand(7)
    assert torch.equal(first, linear_auroc(training, test))


def test_scale_and_offset_of_the_features_do_not_matter() -> None:
    training, test = drawn(samples=120, seed=1, contrast=1), drawn(samples=120, seed=2, contrast=1)
    gains = torch.logspace(-3, 3, 6, dtype=torch.float64)

    def moved(data: LinearSet) -> LinearSet:
        return replace(data, features=data.features * gains + 5 * gains)

    torch.testing.assert_close(
        linear_auroc(moved(training), moved(test)), linear_auroc(training, test), atol=1e-3, rtol=0
    )


def test_samples_without_a_label_teach_nothing_about_its_class() -> None:
    training, test = drawn(samples=120, seed=1, contrast=1), drawn(samples=120, seed=2, contrast=1)
    expected = linear_auroc(training, test)
    labels = training.targets.clone()
    labels[:90, 0] = NAN
    fewer = linear_auroc(replace(training, targets=labels), test)
    assert fewer[0] != expected[0]
    torch.testing.assert_close(fewer[1], expected[1], atol=1e-6, rtol=0)


def test_the_penalty_is_the_one_that_does_best_on_held_out_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training, test = drawn(samples=200, seed=1, contrast=1), drawn(samples=200, seed=2, contrast=1)

    def measured(*penalties: float) -> Tensor:
        monkeypatch.setattr("distributed_pretrain.measures.linear_auroc.PENALTIES", penalties)
        return linear_auroc(training, test)

    # So strong a penalty leaves only the bias: 0.5 would be scored up to rounding.
    torch.testing.assert_close(measured(1e9, 1e-2), measured(1e-2))


def test_labels_of_studies_are_1_0_or_unknown() -> None:
    report = Report(raw="", sections={}, sentences={})
    labels: list[dict[str, float | None]] = [{"Edema": 1.0, "Pneumonia": -1.0}, {"Edema": None}, {}]
    records = [
        StudyRecord(
            key="k",
            patient_id="p",
            study_id="s",
            split="test",
            source="phantom",
            licence="",
            images=(),
            report=report,
            labels=each,
            boxes=(),
            masks=(),
        )
        for each in labels
    ]
    measure = LinearAuroc(Context(objective=tiny_lovt(), device=torch.device("cpu")))
    first, second, third = map(measure.known_of, records)
    assert first["Edema"] == 1
    assert first["Pneumonia"].isnan()
    assert second["Edema"].isnan()
    assert third == {}
