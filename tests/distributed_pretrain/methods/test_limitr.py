from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from data_shards.errors import InputError
from data_shards.profiles import load_profile
from distributed_pretrain.losses.contrastive import symmetric_cross_entropy
from distributed_pretrain.losses.local import internal_loss
from distributed_pretrain.methods.image_text import ImageEmbeddings
from distributed_pretrain.methods.limitr.method import LimitrOutputs
from distributed_pretrain.methods.limitr.settings import LimitrConfig
from distributed_pretrain.models.heads import TwoLevelHeads
from distributed_pretrain.models.image_encoder import make_image_encoder, upsampled
from distributed_pretrain.models.positions import grid_positions
from distributed_pretrain.pretrain.settings import PretrainConfig
from tests.tiny.batches import pairs_of_words, with_padded_reports
from tests.tiny.methods import PROFILES, gradients_in_pieces, state_after_step, tiny_limitr
from tests.tiny.sizes import REPORT_ENCODER

DIM = REPORT_ENCODER["hidden_size"]


def test_the_defaults_are_the_papers() -> None:
    defaults = LimitrConfig().model_dump()
    assert defaults["image_encoder"]["backbone"] == "resnet50"
    assert defaults["report_encoder"] == {
        "name": "pretrained",
        "model": "emilyalsentzer/Bio_ClinicalBERT",
        "frozen_layers": None,
    }
    full_model = {"variant": "paper", "lateral": True, "position": True, "upsample_px": 299}
    words_and_losses = {"last_layers": 4, "temperature": 0.1, "external_negatives": "local"}
    weights = {"global_weight": 1, "external_weight": 1, "internal_weight": 1}
    for name, value in (full_model | words_and_losses | weights).items():
        assert defaults[name] == value, name


def test_the_profiles_are_the_papers_and_the_authors() -> None:
    paper, authors, cluster = (
        load_profile(PretrainConfig, PROFILES[f"limitr_{name}"])
        for name in ("a100", "a100_authors", "2x8")
    )
    assert paper.method == LimitrConfig()
    assert (paper.optimizer.learning_rate, paper.optimizer.weight_decay) == (5e-5, 1e-6)
    assert (paper.data.global_batch, paper.data.max_tokens) == (48, 97)
    assert (paper.training.best_metric, paper.training.clip_gradient_norm) == ("recall_sum", 0.25)
    expected = LimitrConfig(variant="authors", lateral=False, position=False, internal_weight=0)
    assert authors.method == expected
    assert authors.data.views == "frontal"
    assert cluster.data.global_batch == 16 * 48
    assert cluster.optimizer.learning_rate == pytest.approx(5e-5 * math.sqrt(16))


def test_the_paper_sees_361_regions_of_768_dimensions_in_each_view() -> None:
    with torch.device("meta"):
        encoder = make_image_encoder("resnet50")
        heads = TwoLevelHeads(encoder, 768)
        image, regions = heads(encoder.tokens(upsampled(torch.zeros(2, 1, 224, 224), 299)))
    assert image.shape == (2, 768)
    assert regions.shape == (2, 19, 19, 768)
    assert heads.region.weight.numel() == 1024 * 768
    assert heads.region.bias is None


@pytest.mark.parametrize("variant", ["paper", "authors"])
@pytest.mark.parametrize("weights", ["uniform", "learned"])
def test_the_terms_are_the_equations(variant: str, weights: str) -> None:
    """Sides are added in the paper and averaged in the authors' code."""
    changes = {"variant": variant, "internal_weights": weights, "internal_reduction": "sum"}
    factors = {"global_weight": 0.5, "external_weight": 2, "internal_weight": 3}
    model = tiny_limitr(**changes, **factors).eval()
    outputs = model(pairs_of_words(4, laterals=(True,) * 4))
    terms = model.loss(outputs)
    images, reports = outputs.images, outputs.reports
    cosine = normalize(images.image, dim=1) @ normalize(reports.report, dim=1).T
    torch.testing.assert_close(terms["global"], symmetric_cross_entropy(cosine, temperature=0.1))

    share = 0.5 if variant == "authors" else 1.0
    regions = torch.cat([images.regions.flatten(1, 2), images.lateral_regions.flatten(1, 2)], dim=1)
    sides = model.similarity_of_pairs(regions, reports.local, reports.local_mask)
    external = sum(symmetric_cross_entropy(side, temperature=0.1) for side in sides)
    torch.testing.assert_close(terms["external"], share * external)

    matched = model.similarity_of_pairs.matched(regions, reports.local, reports.local_mask)
    learned = weights == "learned"
    internal = internal_loss(
        regions,
        matched.attended_regions,
        weights=matched.region_weights if learned else None,
        reduction="sum",
    ) + internal_loss(
        reports.local,
        matched.attended_words,
        reports.local_mask,
        weights=matched.word_weights if learned else None,
        reduction="sum",
    )
    torch.testing.assert_close(terms["internal"], share * internal)
    total = 0.5 * terms["global"] + 2 * terms["external"] + 3 * terms["internal"]
    torch.testing.assert_close(terms["total"], total)


def test_words_are_cls_and_the_sums_of_pieces_and_a_report_their_mean() -> None:
    model, batch = tiny_limitr().eval(), pairs_of_words(4)
    report = batch.report
    found = model.embed_reports(report)
    states = model.report_encoder.bert(
        report.token_ids, attention_mask=report.token_mask.long(), output_hidden_states=True
    ).hidden_states
    tokens = states[-1] + states[-2]
    for row in range(4):
        count = int(report.token_mask[row].sum())
        # [CLS], a word of two pieces, words of one piece, [SEP].
        first = [tokens[row, 0], tokens[row, 1] + tokens[row, 2]]
        expected = torch.stack([*first, *tokens[row, 3 : count - 1]])
        torch.testing.assert_close(found.local[row, : len(expected)], expected)
        assert found.local_mask[row].tolist() == [i < len(expected) for i in range(6)]
        torch.testing.assert_close(found.report[row], tokens[row, :count].mean(dim=0))


def test_padding_of_reports_changes_nothing() -> None:
    batch = pairs_of_words(4, laterals=(True, False, True, True))
    longer = with_padded_reports(batch, tokens=3)
    states = [state_after_step(tiny_limitr(), each) for each in (batch, longer)]
    for name, expected in states[0].items():
        torch.testing.assert_close(states[1][name], expected, rtol=1e-9, atol=1e-11, msg=name)


def regions_of(images: ImageEmbeddings, row: int) -> Tensor:
    """Those of the frontal and, where there is one, of the lateral: R D."""
    assert images.lateral_regions is not None
    assert images.lateral_mask is not None
    views = [images.regions[row].flatten(0, 1)]
    if images.lateral_mask[row]:
        views.append(images.lateral_regions[row].flatten(0, 1))
    return torch.cat(views)


def test_retrieval_takes_the_mean_of_the_global_cosine_and_both_sides() -> None:
    model, batch = (
        tiny_limitr().eval(),
        pairs_of_words(5, laterals=(True, False, True, True, False)),
    )
    images = model.embed_images(batch).rows(slice(0, 3))
    reports = model.embed_reports(batch.report)
    found = model.similarity(images, reports)
    assert found.shape == (3, 5)
    assert model.compares_local
    for i in range(3):
        regions = regions_of(images, i)
        for j in range(5):
            words = reports.local[j : j + 1, : int(reports.local_mask[j].sum())]
            sides = model.similarity_of_pairs(
                regions[None], words, torch.ones_like(words[..., 0]).bool()
            )
            cosine = torch.cosine_similarity(images.image[i], reports.report[j], dim=0)
            expected = (cosine + (sides[0] + sides[1])[0, 0] / 2) / 2
            torch.testing.assert_close(found[i, j], expected)


def test_a_phrase_s_heat_is_the_attention_of_its_words_over_the_frontal_regions() -> None:
    model, batch = tiny_limitr().eval(), pairs_of_words(3, laterals=(True, False, True))
    images, phrases = model.embed_images(batch), model.embed_reports(batch.report)
    heat = model.grounding_map(phrases, images)
    assert heat.shape == (3, 3, 3)
    for i in range(3):
        regions = regions_of(images, i)
        words = phrases.local[i, : int(phrases.local_mask[i].sum())]
        attention = (4 * normalize(regions, dim=1) @ normalize(words, dim=1).T).softmax(dim=0)
        torch.testing.assert_close(heat[i].flatten(), attention.mean(dim=1)[:9])
    torch.testing.assert_close(heat[1].sum(), torch.tensor(1.0).double())


def test_words_carry_the_weights_that_the_aggregation_gives_them() -> None:
    model, batch = tiny_limitr().eval(), pairs_of_words(3, laterals=(True, False, True))
    outputs: LimitrOutputs = model(batch)
    weights = outputs.reports.local_weights
    assert weights is not None
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3).double())
    assert not weights[~outputs.reports.local_mask].any()


@pytest.mark.parametrize("negatives", ["local", "global"])
def test_micro_batches_do_not_change_the_loss_whichever_negatives_it_takes(negatives: str) -> None:
    """In one process "local" are all samples of the batch, whatever the accumulation."""
    batch = pairs_of_words(6, laterals=(True, False, False, False, True, True))
    expected, found = (
        gradients_in_pieces(tiny_limitr(external_negatives=negatives), batch, pieces)
        for pieces in (1, 3)
    )
    assert found.keys() == expected.keys()
    assert any(name.startswith("gradient similarity_of_pairs") for name in found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-10, msg=name)


def test_positions_can_be_left_out_and_upsampling_makes_more_regions() -> None:
    batch = pairs_of_words(2, laterals=(True, True))
    placed, plain = (tiny_limitr(position=switch).eval() for switch in (True, False))
    difference = placed.embed_images(batch).regions - plain.embed_images(batch).regions
    torch.testing.assert_close(difference, grid_positions(3, 3, DIM).expand(2, 3, 3, DIM))
    finer = tiny_limitr(upsample_px=96).eval()
    assert finer.embed_images(batch).regions.shape == (2, 6, 6, DIM)
    assert finer.feature_map(batch.images).shape == (2, 64, 3, 3)


def test_upsampling_keeps_every_region_where_it_lies() -> None:
    """A grey value that grows linearly stays so, except beyond the outermost centres."""
    ramp = (torch.arange(8) + 0.5).expand(1, 1, 8, 8) / 8
    finer = upsampled(ramp, 32)[0, 0, 0, 2:-2]
    torch.testing.assert_close(finer, ((torch.arange(32) + 0.5) / 32)[2:-2])


def test_encoders_that_do_not_fit_are_refused() -> None:
    densenet = {"backbone": "densenet121", "weights": None, "norm": "group"}
    with pytest.raises(InputError, match="choose one of resnet18"):
        tiny_limitr(image_encoder=densenet, lateral=False)
    with pytest.raises(InputError, match="the report encoder has 2 layers: sum from 1 to 2"):
        tiny_limitr(last_layers=4, lateral=False)(pairs_of_words(2))
    transformer = {"backbone": "vit_b_32", "weights": None, "norm": "sync"}
    with pytest.raises(InputError, match=r"method.upsample_px=299: .* 32 px: use 288, or null"):
        tiny_limitr(image_encoder=transformer, upsample_px=299, lateral=False)
