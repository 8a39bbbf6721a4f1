"""Supervision by CheXpert's labels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from data_shards.errors import InputError
from data_shards.profiles import load_profile
from distributed_pretrain.methods.chexpert.settings import ChexpertConfig
from distributed_pretrain.methods.labels import LabelClassifier, LabelOutputs
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.pretrain.settings import PretrainConfig
from tests.tiny.batches import random_batch
from tests.tiny.methods import PROFILES, tiny_method, tiny_profile

PROFILE = tiny_profile("phantom_chexpert", norm="group")
NAN = torch.nan


def tiny_chexpert() -> LabelClassifier:
    method = tiny_method(PROFILE)
    assert isinstance(method, LabelClassifier)
    return method


def outputs_of(labels: list[list[float]]) -> LabelOutputs:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(len(labels), len(labels[0]), generator=generator).requires_grad_()
    mask = torch.ones(len(labels), dtype=torch.bool)
    return LabelOutputs(logits=logits, labels=torch.tensor(labels), sample_mask=mask)


@pytest.mark.parametrize(
    ("name", "learning_rate"), [("chexpert_a100", 3e-4), ("chexpert_a100_30", 1e-4)]
)
def test_the_profiles_have_the_settings_of_the_comparison(name: str, learning_rate: float) -> None:
    profile = load_profile(PretrainConfig, PROFILES[name])
    optimizer, data, training = profile.optimizer, profile.data, profile.training
    assert (optimizer.name, optimizer.weight_decay) == ("adam", 1e-6)
    assert optimizer.learning_rate == learning_rate
    assert data.patient_fraction == (0.3 if name.endswith("30") else 1)
    assert (data.global_batch, data.views, len(data.labels)) == (64, "frontal", 14)
    assert (profile.schedule.name, training.best_metric) == ("plateau", "auroc")


def test_a_logit_is_linear_in_the_mean_of_the_feature_map() -> None:
    method, batch = tiny_chexpert(), random_batch(PROFILE, 3)
    outputs = method(batch)
    pooled = method.feature_map(batch.images).mean(dim=(2, 3))
    torch.testing.assert_close(outputs.logits, method.classifier(pooled))
    assert outputs.logits.shape == (3, len(PROFILE.data.labels))
    assert batch.labels is not None
    assert torch.equal(outputs.labels, batch.labels.nan_to_num(nan=-1))


def test_only_known_labels_teach() -> None:
    outputs = outputs_of([[1.0, NAN], [-1.0, 0.0], [NAN, NAN]])
    loss = tiny_chexpert().loss(outputs)["total"]
    known = [(0, 0, 1.0), (1, 1, 0.0)]
    each = [
        binary_cross_entropy_with_logits(outputs.logits[row, column], torch.tensor(label))
        for row, column, label in known
    ]
    torch.testing.assert_close(loss, torch.stack(each).mean())
    (gradient,) = torch.autograd.grad(loss, outputs.logits)
    assert gradient.nonzero().tolist() == [[row, column] for row, column, _ in known]


def test_parts_of_a_batch_join_to_the_mean_over_all_known_labels() -> None:
    method = tiny_chexpert()
    outputs = outputs_of([[1.0, 0.0], [NAN, NAN], [-1.0, 1.0], [NAN, 0.0]])

    def part(rows: slice) -> dict[str, Tensor]:
        return method.contrasted(
            LabelOutputs(
                logits=outputs.logits[rows],
                labels=outputs.labels[rows],
                sample_mask=outputs.sample_mask[rows],
            )
        ).rows

    first, second = part(slice(0, 1)), part(slice(1, 4))
    joint = {name: torch.cat([first[name], second[name]]) for name in first}
    ours = method.batch_terms(**joint)["multi_label"]
    torch.testing.assert_close(ours, method.loss(outputs)["multi_label"])


def test_a_label_that_is_not_mentioned_is_not_an_output_gone_wrong() -> None:
    """The trainer looks for samples whose rows are not finite."""
    method, batch = tiny_chexpert(), random_batch(PROFILE, 4)
    assert batch.labels is not None
    unknown = replace(batch, labels=torch.full_like(batch.labels, NAN))
    rows = method.contrasted(method(unknown)).rows
    assert all(bool(each.isfinite().all()) for each in rows.values())
    assert method.loss(method(unknown))["total"].item() == 0


def test_without_labels_it_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"data\.labels=\[\]: method\.name=chexpert .*name them"):
        ChexpertConfig().build(Sizes(vocabulary=0, classes=0))
