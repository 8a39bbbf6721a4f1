from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from data_shards.errors import InputError
from data_shards.profiles import load_profile
from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.encoders import PretrainedReportEncoderConfig
from distributed_pretrain.methods.image_text import ImageEmbeddings, ReportEmbeddings
from distributed_pretrain.methods.lovt.settings import LovtConfig
from distributed_pretrain.methods.settings import Sizes
from tests.tiny.batches import (
    as_double,
    pairs_of_sentences,
    with_padded_reports,
    with_padded_samples,
)
from tests.tiny.methods import state_after_step, tiny_lovt, tiny_settings
from tests.tiny.sizes import VOCABULARY_SIZE


def tiny_batch(sentence_counts: tuple[int, ...] = (3, 1, 2, 3, 1, 2)) -> Batch:
    """Images of 3 x 3 regions."""
    return pairs_of_sentences(*sentence_counts, image_size_px=96)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learnable_temperatures": True, "chunk_size": 4},
        {"alignment_bias": True, "alignment_norm": True, "gather_negatives": False},
        {"attention_pooling": False, "spatial_prior": False},
    ],
)
def test_twenty_steps_lower_the_loss_and_reach_every_parameter(changes: dict[str, Any]) -> None:
    model, batch = tiny_lovt(**changes), tiny_batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    history: list[dict[str, float]] = []
    for _ in range(20):
        terms = model.loss(model(batch))
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
        history.append({name: term.item() for name, term in terms.items()})
        assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert history[-1]["total"] < 0.7 * history[0]["total"]
    assert all(history[-1][name] < history[0][name] for name in history[0])


def test_the_total_is_equation_13() -> None:
    model = tiny_lovt(global_weight=0.5, local_image_weight=2.0, local_report_weight=3.0).double()
    batch = tiny_batch()
    terms = model.loss(model(replace(batch, images=batch.images.double())))
    expected = (
        0.5 * terms["global"].item()
        + 2.0 * terms["local_image"].item()
        + 3.0 * terms["local_report"].item()
    )
    assert terms["total"].item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    "changes",
    [
        {"alignment_bias": True, "alignment_norm": True, "learnable_temperatures": True},
        {"attention_pooling": False},
        {"attention_weights": False},
    ],
)
def test_padded_samples_and_sentences_change_nothing(changes: dict[str, Any]) -> None:
    batch = tiny_batch()
    padded = with_padded_samples(with_padded_reports(batch, sentences=2, tokens=4), rows=3)
    states = [
        state_after_step(tiny_lovt(**changes).double(), as_double(each)) for each in (batch, padded)
    ]
    for name, expected in states[0].items():
        torch.testing.assert_close(states[1][name], expected, rtol=1e-8, atol=1e-10, msg=name)


def test_reports_of_one_sentence_have_no_local_report_loss() -> None:
    model = tiny_lovt()
    terms = model.loss(model(tiny_batch((1, 1, 1))))
    assert terms["local_report"].item() == 0
    assert terms["total"].isfinite()


def test_outputs_hold_regions_and_weights_that_sum_to_one() -> None:
    model, batch = tiny_lovt(), tiny_batch()
    outputs = model(batch)
    assert outputs.images.regions.shape == (6, 3, 3, 16)
    torch.testing.assert_close(outputs.images.region_weights.sum(dim=(1, 2)), torch.ones(6))
    torch.testing.assert_close(outputs.reports.local_weights.sum(dim=1), torch.ones(6))


def test_embeddings_are_those_of_training() -> None:
    model, batch = tiny_lovt().eval(), tiny_batch()
    with torch.no_grad():
        outputs = model(batch)
        images, reports = model.embed_images(batch), model.embed_reports(batch.report)
        feature_map = model.feature_map(batch.images)
    assert torch.equal(images.image, outputs.images.image)
    assert torch.equal(images.regions, outputs.images.regions)
    assert torch.equal(reports.report, outputs.reports.report)
    assert torch.equal(reports.local, outputs.reports.local)
    assert feature_map.shape == (6, 64, 3, 3)


def test_without_attention_weights_all_regions_and_sentences_count_alike() -> None:
    model, batch = tiny_lovt(attention_weights=False), tiny_batch()
    outputs = model(batch)
    mask = batch.report.sentence_mask
    equal = replace(
        outputs,
        images=replace(outputs.images, region_weights=torch.full((6, 3, 3), 1 / 9)),
        reports=replace(outputs.reports, local_weights=mask / mask.sum(dim=1, keepdim=True)),
    )
    weighted = tiny_lovt()
    for name, term in model.loss(outputs).items():
        torch.testing.assert_close(term, weighted.loss(equal)[name])
    assert model.loss(outputs)["local_image"] != weighted.loss(outputs)["local_image"]


def test_the_spatial_prior_makes_neighbours_positives() -> None:
    outputs = tiny_lovt()(tiny_batch())
    with_prior, without = (
        tiny_lovt(spatial_prior=switch).loss(outputs)["local_image"] for switch in (True, False)
    )
    assert with_prior != without
    torch.testing.assert_close(without, tiny_lovt(cutoff=0.0).loss(outputs)["local_image"])


def test_learnt_temperatures_start_at_the_given_ones_and_stay_positive() -> None:
    model = tiny_lovt(learnable_temperatures=True)
    outputs = model(tiny_batch())
    assert outputs.global_temperature.item() == pytest.approx(0.1)
    assert outputs.local_temperature.item() == pytest.approx(0.3)
    assert model.log_global_temperature.shape == (1,)
    torch.nn.init.constant_(model.log_global_temperature, -100)
    assert model(tiny_batch()).global_temperature.item() == pytest.approx(0.01)


def test_bfloat16_autocast_gives_float32_losses_near_the_full_ones() -> None:
    model, batch = tiny_lovt(), tiny_batch()
    full = model.loss(model(batch))
    with torch.autocast("cpu", torch.bfloat16):
        lowered = model.loss(model(batch))
    lowered["total"].backward()
    for name, term in full.items():
        assert lowered[name].dtype == torch.float32
        assert lowered[name].item() == pytest.approx(term.item(), rel=0.05)


def saved_bert(folder: Path) -> str:
    config = BertConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    BertModel(config).save_pretrained(folder)
    return str(folder)


def test_frozen_layers_of_a_pretrained_bert_get_no_gradient(tmp_path: Path) -> None:
    model = tiny_lovt(
        report_encoder={"name": "pretrained", "model": saved_bert(tmp_path), "frozen_layers": 1}
    )
    model.loss(model(tiny_batch()))["total"].backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {name for name, p in model.named_parameters() if not p.requires_grad}
    prefixes = ("report_encoder.bert.embeddings.", "report_encoder.bert.encoder.layer.0.")
    assert without
    assert all(name.startswith(prefixes) for name in without)


def test_a_tokenizer_of_more_tokens_than_the_bert_knows_is_refused(tmp_path: Path) -> None:
    config = tiny_settings(
        LovtConfig, report_encoder={"name": "pretrained", "model": saved_bert(tmp_path)}
    )
    with pytest.raises(InputError, match="knows 40 tokens, the tokenizer 41"):
        config.build(Sizes(vocabulary=41))


def test_the_defaults_are_the_papers() -> None:
    config = LovtConfig()
    assert (config.image_encoder.backbone, config.embedding_dim) == ("resnet50", 512)
    assert config.report_encoder == PretrainedReportEncoderConfig(
        model="emilyalsentzer/Bio_ClinicalBERT", frozen_layers=6
    )
    assert (config.global_temperature, config.local_temperature) == (0.1, 0.3)
    assert (config.global_weight, config.local_image_weight, config.local_report_weight) == (
        1.0,
        0.75,
        0.75,
    )


def test_a_profile_switches_the_report_encoder_by_name(tmp_path: Path) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text("report_encoder: {name: new, hidden_size: 64}\n")
    config = load_profile(LovtConfig, profile, ["report_encoder.heads=2"])
    assert config.report_encoder.name == "new"
    with pytest.raises(InputError, match="did you mean 'hidden_size'"):
        load_profile(LovtConfig, profile, ["report_encoder.hiden_size=2"])


def test_the_heat_of_a_phrase_is_its_similarity_to_itself_seen_from_one_region() -> None:
    """With a single region, what eq 2 makes of the sentence is what the heat compares."""
    model = tiny_lovt().eval()
    regions = torch.randn(4, 1, 16)
    sentences = torch.randn(4, 1, 16)
    mask = torch.ones(4, 1, dtype=torch.bool)
    aligned = model.alignment(regions, sentences, mask)
    heat = model.grounding_map(
        ReportEmbeddings(report=sentences[:, 0], local=sentences, local_mask=mask),
        ImageEmbeddings(image=regions[:, 0], regions=regions[:, :, None]),
    )
    wanted = torch.cosine_similarity(sentences[:, 0], aligned.sentences_from_image[:, 0])
    torch.testing.assert_close(heat[:, 0, 0], wanted)


@pytest.mark.parametrize("pooling", [True, False])
def test_without_local_losses_the_heat_is_that_of_the_global_one(pooling: bool) -> None:
    """Of each region as if it were the image, and of the phrase as a report: heads that learn."""
    model = tiny_lovt(local_image_weight=0, local_report_weight=0, attention_pooling=pooling)
    batch = tiny_batch()
    assert model.local_terms == ()
    assert model.train().embed_images(batch).regions_as_images is None
    with torch.no_grad():
        images = model.eval().embed_images(batch)
        reports = model.embed_reports(batch.report)
        heat = model.grounding_map(reports, images)
        cells = model.image_encoder(batch.images, batch.encoded_mask)
        # An image that is one of its cells everywhere.
        cell = cells[:, :, 1:2, 0:1].flatten(2).mT
        pooled = model.region_pooling(cell)[0] if pooling else cell[:, 0]
        as_image = model.image_projection(pooled)
    wanted = torch.cosine_similarity(as_image, reports.report)
    torch.testing.assert_close(heat[:, 1, 0], wanted)
