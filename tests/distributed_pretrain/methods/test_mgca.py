from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from data_shards.errors import InputError
from data_shards.profiles import load_profile
from distributed_pretrain.losses.token_alignment import clipped_weights
from distributed_pretrain.methods.encoders import PretrainedReportEncoderConfig
from distributed_pretrain.methods.image_text import ImageEmbeddings, ReportEmbeddings
from distributed_pretrain.methods.mgca.method import Mgca
from distributed_pretrain.methods.mgca.settings import MgcaConfig
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.models.norms.rows import MaskedBatchNorm
from distributed_pretrain.models.report_encoder import new_report_encoder
from distributed_pretrain.models.trunks.resnet import ResNetTrunk
from distributed_pretrain.models.trunks.vision_transformer import VisionTransformerTrunk
from distributed_pretrain.pretrain.settings import PretrainConfig
from tests.tiny.batches import random_batch, with_padded_reports
from tests.tiny.methods import PROFILES, SIZES, tiny_profile, tiny_settings
from tests.tiny.sizes import VOCABULARY_SIZE

BATCH = random_batch(tiny_profile("phantom_mgca"), 6)


def tiny_config(**changes: Any) -> MgcaConfig:
    return tiny_settings(MgcaConfig, **{"report_layers": None} | changes)


def tiny_mgca(**changes: Any) -> Mgca:
    torch.manual_seed(0)
    return tiny_config(**changes).build(SIZES)


def mgca_with_vit() -> Mgca:
    """One layer of a ViT-B/32: 2 x 2 patches at 64 px."""
    torch.manual_seed(0)
    trunk = VisionTransformerTrunk("vit_b_32", layers=1)
    reports = new_report_encoder(
        VOCABULARY_SIZE, hidden_size=32, layers=1, heads=2, intermediate_size=64, dropout=0.0
    )
    return Mgca(tiny_config(), ImageEncoder(trunk), reports)


def test_pairs_are_told_apart_with_temperature_007_in_both_directions_alike() -> None:
    model = tiny_mgca()
    outputs = model(BATCH)
    cosine = normalize(outputs.images.image, dim=1) @ normalize(outputs.reports.report, dim=1).T
    pairs = torch.arange(len(BATCH.keys))
    both = cross_entropy(cosine / 0.07, pairs) + cross_entropy(cosine.T / 0.07, pairs)
    terms = model.loss(outputs)
    torch.testing.assert_close(terms["pair"], both / 2)
    torch.testing.assert_close(
        terms["total"], terms["pair"] + terms["token"] + terms["prototype"], rtol=1e-5, atol=1e-6
    )


def test_prototypes_do_not_learn_in_the_first_epoch_but_do_teach() -> None:
    gradients: dict[int, dict[str, Tensor]] = {}
    for epoch in (0, 1):
        model = tiny_mgca()
        model.start_step(epoch=epoch)
        terms = model.loss(model(BATCH))
        (terms["prototype"]).backward()
        gradients[epoch] = {
            name: parameter.grad
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
    assert not gradients[0].pop("prototypes").any()
    assert gradients[1].pop("prototypes").any()
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


def test_the_regions_of_a_resnet_are_its_third_stage_and_count_alike() -> None:
    model = tiny_mgca()
    images = model(BATCH).images
    assert model.feature_map(BATCH.images).shape[2:] == (2, 2)
    assert images.regions.shape == (6, 4, 4, 16)
    torch.testing.assert_close(images.region_weights, torch.full((6, 4, 4), 1 / 16))


def test_the_last_stage_of_a_resnet_goes_on_from_its_regions() -> None:
    encoder = tiny_mgca().eval().image_encoder
    tokens = encoder.tokens(BATCH.images)
    trunk = encoder.backbone
    assert isinstance(trunk, ResNetTrunk)
    last_map = trunk.layer4(tokens.regions.permute(0, 3, 1, 2))
    torch.testing.assert_close(last_map, encoder(BATCH.images))
    torch.testing.assert_close(tokens.image, last_map.mean(dim=(2, 3)))
    assert tokens.regions.shape[3] == encoder.region_channels


def test_the_patches_of_a_vit_count_by_what_the_class_token_pays_them() -> None:
    model = mgca_with_vit().eval()
    images = model(BATCH).images
    trunk = model.image_encoder.backbone
    assert isinstance(trunk, VisionTransformerTrunk)
    tokens = trunk.tokens(BATCH.images.expand(-1, 3, -1, -1))
    assert images.regions.shape == (6, 2, 2, 16)
    everywhere = torch.ones(6, 4, dtype=torch.bool)
    assert tokens.class_attention is not None
    weights = clipped_weights(tokens.class_attention, everywhere)
    torch.testing.assert_close(images.region_weights, weights.unflatten(1, (2, 2)))
    assert weights.std(dim=1).min() > 0
    torch.testing.assert_close(images.image, model.image_projection(tokens.image))


def test_a_vit_trains_with_every_parameter() -> None:
    model = mgca_with_vit()
    model.loss(model(BATCH))["total"].backward()
    assert [
        name for name, p in model.named_parameters() if p.requires_grad and p.grad is None
    ] == []


def test_masked_images_reach_no_vit() -> None:
    encoder = mgca_with_vit().image_encoder
    mask = torch.tensor([True, False, True, True, False, True])
    images = BATCH.images.masked_fill(~mask[:, None, None, None], torch.nan)
    tokens, expected = encoder.tokens(images, mask), encoder.tokens(images[mask])
    for ours, wanted in (
        (tokens.image, expected.image),
        (tokens.regions, expected.regions),
        (tokens.class_attention, expected.class_attention),
    ):
        assert ours is not None
        assert wanted is not None
        torch.testing.assert_close(ours[mask], wanted)
        assert not ours[~mask].any()


def test_words_are_sums_of_their_pieces_and_count_by_what_cls_pays_these() -> None:
    """Two pieces are the first word of each sentence; CLS and SEP are none."""
    model = tiny_mgca().eval()
    report = BATCH.report
    reports = model.embed_reports(report)
    tokens, attention = model.report_encoder.embed_tokens_with_attention(
        report.token_ids, report.token_mask
    )
    assert torch.equal(reports.local_mask.sum(dim=1), report.word_index.amax(dim=1) + 1)
    first_word = model.word_projection(tokens[:, 1] + tokens[:, 2])
    torch.testing.assert_close(reports.local[:, 0], first_word)
    torch.testing.assert_close(reports.report, model.report_projection(tokens[:, 0]))
    # The first report has one sentence: four pieces, three words.
    paid = torch.stack([attention[0, 1] + attention[0, 2], attention[0, 3], attention[0, 4]])
    weights = clipped_weights(paid[None], torch.ones(1, 3, dtype=torch.bool))
    assert reports.local_weights is not None
    torch.testing.assert_close(reports.local_weights[:1, :3], weights)


def test_padded_words_change_nothing() -> None:
    states = []
    for batch in (BATCH, with_padded_reports(BATCH, tokens=5)):
        model = tiny_mgca().double()
        terms = model.loss(model(replace(batch, images=batch.images.double())))
        terms["total"].backward()
        gradients = {
            name: parameter.grad
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
        states.append(terms | gradients | dict(model.named_buffers()))
    assert states[0].keys() == states[1].keys()
    for name, expected in states[0].items():
        torch.testing.assert_close(states[1][name], expected, rtol=1e-8, atol=1e-10, msg=name)


def test_heads_end_in_a_norm_that_learns_nothing() -> None:
    model = tiny_mgca()
    for head in (
        model.image_projection,
        model.region_projection,
        model.report_projection,
        model.word_projection,
    ):
        assert isinstance(head.output_norm, MaskedBatchNorm)
        assert not any(parameter.requires_grad for parameter in head.output_norm.parameters())


def test_the_report_encoder_is_cut_to_its_first_layers() -> None:
    assert len(tiny_mgca(report_layers=1).report_encoder.bert.encoder.layer) == 1
    with pytest.raises(InputError, match="the report encoder has 2 layers"):
        tiny_mgca(report_layers=6)


def test_a_backbone_without_regions_of_its_own_is_refused() -> None:
    with pytest.raises(InputError, match="the third stage of a ResNet or the patches"):
        tiny_mgca(image_encoder={"backbone": "mobilenet_v3_small", "weights": None})


def test_a_phrase_lights_up_the_region_its_words_attend_to() -> None:
    model = tiny_mgca()
    regions = normalize(torch.eye(6, 16)).view(1, 2, 3, 16)
    words = torch.stack([regions[0, 1, 2], regions[0, 0, 1], torch.ones(16)])[None]
    heat = model.grounding_map(
        ReportEmbeddings(
            report=torch.ones(1, 16),
            local=words,
            local_mask=torch.tensor([[True, True, False]]),
            local_weights=torch.tensor([[0.75, 0.25, 0.0]]),
        ),
        ImageEmbeddings(image=torch.ones(1, 16), regions=regions),
    )
    # Cosine 1 to one region and 0 to the others, over a temperature of 0.1.
    share = torch.tensor([10.0, 0, 0, 0, 0, 0]).softmax(dim=0)
    assert heat[0, 1, 2].item() == pytest.approx((0.75 * share[0] + 0.25 * share[1]).item())
    assert heat[0, 0, 1].item() == pytest.approx((0.25 * share[0] + 0.75 * share[1]).item())
    assert heat.sum().item() == pytest.approx(1)


def test_the_defaults_are_the_papers() -> None:
    config = MgcaConfig()
    assert config.image_encoder.backbone == "resnet50"
    assert config.report_encoder == PretrainedReportEncoderConfig(
        model="emilyalsentzer/Bio_ClinicalBERT", frozen_layers=None
    )
    assert (config.report_layers, config.embedding_dim, config.prototypes) == (6, 128, 500)
    assert (config.pair_temperature, config.token_temperature) == (0.07, 0.1)
    assert (
        config.prototype_temperature,
        config.sinkhorn_epsilon,
        config.sinkhorn_iterations,
        config.frozen_prototype_epochs,
    ) == (0.2, 0.05, 3, 1)
    assert (config.pair_weight, config.token_weight, config.prototype_weight) == (1.0, 1.0, 1.0)


def test_the_profiles_are_the_papers() -> None:
    resnet, vit = (
        load_profile(PretrainConfig, PROFILES[name]) for name in ("mgca_a100", "mgca_vit_a100")
    )
    assert (resnet.optimizer.name, resnet.optimizer.learning_rate) == ("adamw", 2e-5)
    assert (resnet.optimizer.weight_decay, resnet.data.global_batch) == (0.05, 72)
    assert (resnet.schedule.name, resnet.schedule.warmup_share) == ("cosine", 0.4)
    assert resnet.training.early_stopping is not None
    assert (resnet.training.epochs, resnet.training.early_stopping.patience) == (50, 5)
    # 19 x 19 regions of the third stage, 14 x 14 patches of 16 px.
    assert (resnet.data.image_size_px, vit.data.image_size_px) == (299, 224)
    assert vit.method.image_encoder.backbone == "vit_b_16"
    assert (vit.optimizer, vit.schedule) == (resnet.optimizer, resnet.schedule)
