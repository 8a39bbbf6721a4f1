from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from data_shards.profiles import load_profile
from distributed_pretrain.losses.contrastive import symmetric_cross_entropy
from distributed_pretrain.methods.gloria.settings import GloriaConfig
from distributed_pretrain.pretrain.settings import PretrainConfig
from tests.tiny.batches import pairs_of_words
from tests.tiny.methods import PROFILES, gradients_in_pieces, tiny_gloria


def seen_by_words(regions: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """m_j of the paper and α (regions x words), for one image and one report."""
    scores = regions @ words.T
    attention = (4 * scores.softmax(dim=1)).softmax(dim=0)
    return attention.T @ regions, attention


def test_the_defaults_are_the_papers() -> None:
    defaults = GloriaConfig().model_dump()
    assert defaults["image_encoder"]["backbone"] == "resnet50"
    assert defaults["report_encoder"] == {
        "name": "pretrained",
        "model": "emilyalsentzer/Bio_ClinicalBERT",
        "frozen_layers": None,
    }
    temperatures = {"attention_temperature": 4, "word_temperature": 5, "temperature": 1 / 10}
    others = {"global_weight": 1, "local_weight": 1, "upsample_px": 299, "last_layers": 4}
    for name, value in (temperatures | others).items():
        assert defaults[name] == value, name


def test_the_profile_is_the_authors() -> None:
    profile = load_profile(PretrainConfig, PROFILES["gloria_a100"])
    assert profile.method == GloriaConfig()
    assert profile.data.sentences == "one"
    assert (profile.data.text_policy, profile.data.max_tokens) == ("gloria", 97)
    assert (profile.optimizer.learning_rate, profile.optimizer.betas) == (5e-5, (0.5, 0.999))
    assert profile.training.best_metric == "total"


def test_the_terms_are_the_equations() -> None:
    model = tiny_gloria(global_weight=0.5, local_weight=2).eval()
    outputs = model(pairs_of_words(4))
    terms = model.loss(outputs)
    images, reports = outputs.images, outputs.reports
    cosine = normalize(images.image, dim=1) @ normalize(reports.report, dim=1).T
    torch.testing.assert_close(terms["global"], symmetric_cross_entropy(cosine, temperature=0.1))
    similarity = torch.empty(4, 4, dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            words = reports.local[j][reports.local_mask[j]]
            seen, _ = seen_by_words(images.regions[i].flatten(0, 1), words)
            similarity[i, j] = (5 * torch.cosine_similarity(seen, words)).logsumexp(dim=0)
    torch.testing.assert_close(
        terms["local"], symmetric_cross_entropy(10 * similarity, temperature=1.0)
    )
    torch.testing.assert_close(terms["total"], 0.5 * terms["global"] + 2 * terms["local"])


def test_retrieval_takes_the_word_that_fits_best() -> None:
    """As the authors' get_similarities: the mean of the cosine and 5 max_j cos(m_j, t_j)."""
    model, batch = tiny_gloria().eval(), pairs_of_words(5)
    images = model.embed_images(batch).rows(slice(0, 3))
    reports = model.embed_reports(batch.report)
    found = model.similarity(images, reports)
    assert found.shape == (3, 5)
    assert model.compares_local
    for i in range(3):
        for j in range(5):
            words = reports.local[j][reports.local_mask[j]]
            seen, _ = seen_by_words(images.regions[i].flatten(0, 1), words)
            local = 5 * torch.cosine_similarity(seen, words).max()
            whole = torch.cosine_similarity(images.image[i], reports.report[j], dim=0)
            assert found[i, j].item() == pytest.approx(((whole + local) / 2).item(), abs=0.01)


def test_a_phrase_s_heat_is_the_attention_of_its_words() -> None:
    model, batch = tiny_gloria().eval(), pairs_of_words(3)
    images, phrases = model.embed_images(batch), model.embed_reports(batch.report)
    heat = model.grounding_map(phrases, images)
    for i in range(3):
        words = phrases.local[i][phrases.local_mask[i]]
        _, attention = seen_by_words(images.regions[i].flatten(0, 1), words)
        torch.testing.assert_close(heat[i].flatten(), attention.mean(dim=1))
    torch.testing.assert_close(heat.sum(dim=(1, 2)), torch.ones(3).double())


@pytest.mark.parametrize("negatives", ["local", "global"])
def test_micro_batches_do_not_change_the_loss_whichever_negatives_it_takes(negatives: str) -> None:
    batch = pairs_of_words(6)
    expected, found = (
        gradients_in_pieces(tiny_gloria(external_negatives=negatives), batch, pieces)
        for pieces in (1, 3)
    )
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-10, msg=name)


def test_a_single_pair_has_nothing_to_contrast() -> None:
    model = tiny_gloria()
    terms = model.loss(model(pairs_of_words(1)))
    assert terms["global"].item() == pytest.approx(0, abs=1e-9)
    assert terms["local"].item() == pytest.approx(0, abs=1e-9)
