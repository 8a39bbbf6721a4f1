from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn.functional import cross_entropy, normalize

from data_shards.profiles import load_profile
from distributed_pretrain.methods.encoders import PretrainedReportEncoderConfig
from distributed_pretrain.methods.global_contrast.method import GlobalContrast
from distributed_pretrain.methods.global_contrast.settings import ConvirtConfig
from distributed_pretrain.models.norms.rows import MaskedBatchNorm
from distributed_pretrain.pretrain.settings import PretrainConfig
from tests.tiny.batches import random_batch
from tests.tiny.methods import PROFILES, tiny_method, tiny_profile
from tests.tiny.sizes import HEADS


def tiny_convirt() -> GlobalContrast:
    method = tiny_method(tiny_profile("phantom_convirt"))
    assert isinstance(method, GlobalContrast)
    return method


BATCH = random_batch(tiny_profile("phantom_convirt"), 5)


def test_the_loss_is_the_papers() -> None:
    """0.75 x image to text + 0.25 x text to image, cosine / 0.1."""
    method = tiny_convirt()
    outputs = method(BATCH)
    cosine = normalize(outputs.images.image, dim=1) @ normalize(outputs.reports.report, dim=1).T
    pairs = torch.arange(len(BATCH.keys))
    expected = 0.75 * cross_entropy(cosine / 0.1, pairs) + 0.25 * cross_entropy(
        cosine.T / 0.1, pairs
    )
    terms = method.loss(outputs)
    assert terms.keys() == {"total", "global"}
    torch.testing.assert_close(terms["total"], expected)


def test_the_image_is_the_mean_of_its_regions_projected_without_a_norm() -> None:
    method = tiny_convirt().eval()
    last_map = method.feature_map(BATCH.images)
    expected = method.image_head.projection(last_map.mean(dim=(2, 3)))
    torch.testing.assert_close(method(BATCH).images.image, expected)
    heads = (method.image_head, method.report_projection)
    assert not any(isinstance(layer, MaskedBatchNorm) for head in heads for layer in head.modules())


def test_a_report_is_the_maximum_of_its_tokens_wherever_its_sentences_end() -> None:
    method, report = tiny_convirt().eval(), BATCH.report
    one_sentence = replace(
        report,
        sentence_index=report.sentence_index.clamp(max=0),
        sentence_mask=torch.ones(5, 1, dtype=torch.bool),
    )
    embedded, expected = method.embed_reports(one_sentence), method.embed_reports(report)
    torch.testing.assert_close(embedded.report, expected.report)
    assert torch.equal(expected.local[:, 0], expected.report)
    assert expected.local_mask.all()


def test_training_projects_no_regions_and_grounding_each() -> None:
    method = tiny_convirt()
    assert method(BATCH).images.regions.shape == (5, 4, 4, 0)
    images = method.eval().embed_images(BATCH)
    assert images.regions.shape == (5, 4, 4, HEADS["embedding_dim"])
    heat = method.grounding_map(method.embed_reports(BATCH.report), images)
    assert heat.shape == (5, 4, 4)


def test_the_defaults_are_the_papers() -> None:
    config = ConvirtConfig()
    assert config.image_encoder.backbone == "resnet50"
    assert config.report_encoder == PretrainedReportEncoderConfig(
        model="emilyalsentzer/Bio_ClinicalBERT", frozen_layers=6
    )
    assert (config.temperature, config.image_to_report_weight, config.embedding_dim) == (
        0.1,
        0.75,
        512,
    )


def test_the_profile_lets_the_learning_rate_fall_before_it_stops() -> None:
    profile = load_profile(PretrainConfig, PROFILES["convirt_a100"])
    assert (profile.optimizer.name, profile.optimizer.learning_rate) == ("adam", 1e-4)
    assert (profile.data.global_batch, profile.data.sentences) == (32, "one")
    assert (profile.schedule.name, profile.schedule.patience, profile.schedule.factor) == (
        "plateau",
        12,
        0.5,
    )
    assert profile.training.early_stopping is not None
    assert profile.training.early_stopping.patience > profile.schedule.patience


def test_thirty_per_cent_of_the_patients_learn_at_a_tenth_of_the_rate() -> None:
    whole, part = (
        load_profile(PretrainConfig, PROFILES[name]) for name in ("convirt_a100", "convirt_a100_30")
    )
    assert (part.data.patient_fraction, part.optimizer.learning_rate) == (0.3, 1e-5)
    assert part.method == whole.method
    assert part.training == whole.training
