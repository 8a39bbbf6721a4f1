"""LoVT's ablations, each an override of the small profile, and what it takes out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from data_shards.profiles import load_profile
from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.lovt.method import Lovt
from distributed_pretrain.pretrain.settings import PretrainConfig
from tests.paths import DOCS
from tests.tiny.batches import random_batch
from tests.tiny.methods import PROFILES, tiny_method

# As docs/methods.md lists them.
ABLATIONS = {
    "no local losses": ("method.local_image_weight=0", "method.local_report_weight=0"),
    "no local image loss": ("method.local_image_weight=0",),
    "no local report loss": ("method.local_report_weight=0",),
    "no global loss": ("method.global_weight=0",),
    "no weights": ("method.attention_weights=false",),
    "no attention pooling": ("method.attention_pooling=false",),
    "no spatial prior": ("method.spatial_prior=false",),
    "single sentence": ("data.sentences=one",),
}
WEIGHT_OF = {
    "global": "method.global_weight=0",
    "local_image": "method.local_image_weight=0",
    "local_report": "method.local_report_weight=0",
}
# What each loss trains besides the encoders.
PARTS_OF = {
    "global": {"image_projection", "report_projection", "region_pooling", "sentence_pooling"},
    "local_image": {"region_projection", "sentence_projection", "alignment"},
    "local_report": {"region_projection", "sentence_projection", "alignment"},
}


def profile(ablation: str | None = None) -> PretrainConfig:
    overrides = ABLATIONS[ablation] if ablation is not None else ()
    return load_profile(PretrainConfig, PROFILES["phantom_lovt"], list(overrides))


def lovt(ablation: str | None = None) -> Lovt:
    method = tiny_method(profile(ablation))
    assert isinstance(method, Lovt)
    return method


def batch() -> Batch:
    return random_batch(profile(), 4)


def gradients(method: Lovt) -> dict[str, Tensor]:
    """By parameter; every one has one, as DDP demands."""
    method.loss(method(batch()))["total"].backward()
    found = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    assert found.keys() == dict(method.named_parameters()).keys()
    return found


def parts_with_gradient(method: Lovt) -> set[str]:
    """The children of the method that learn anything at all."""
    return {name.split(".")[0] for name, gradient in gradients(method).items() if gradient.any()}


def test_the_page_lists_each_ablation_with_its_overrides() -> None:
    page = (DOCS / "methods.md").read_text()
    for name, overrides in ABLATIONS.items():
        row = f"| {name} | `{' '.join(overrides)}` |"
        assert row in page, row


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_an_ablation_changes_nothing_but_its_fields(ablation: str) -> None:
    whole, ablated = profile().model_dump(), profile(ablation).model_dump()
    for override in ABLATIONS[ablation]:
        section, field = override.split("=")[0].split(".")
        assert whole[section].pop(field) != ablated[section].pop(field)
    assert ablated == whole


@pytest.mark.parametrize(
    "ablation",
    ["no local losses", "no local image loss", "no local report loss", "no global loss"],
)
def test_an_ablated_loss_leaves_the_total_and_trains_nothing(ablation: str) -> None:
    whole, method = lovt(), lovt(ablation)
    kept = {term for term, off in WEIGHT_OF.items() if off not in ABLATIONS[ablation]}
    terms = method.loss(method(batch()))
    expected = sum(whole.term_weights[term] * terms[term] for term in kept)
    torch.testing.assert_close(terms["total"], expected)
    heads = parts_with_gradient(method) - {"image_encoder", "report_encoder"}
    assert heads == set().union(*(PARTS_OF[term] for term in kept))
    assert parts_with_gradient(method) >= {"image_encoder", "report_encoder"}


def test_without_weights_regions_and_sentences_count_alike() -> None:
    whole, method = lovt(), lovt("no weights")
    assert method.state_dict().keys() == whole.state_dict().keys()
    outputs = method(batch())
    mask = batch().report.sentence_mask
    alike = replace(
        outputs,
        images=replace(outputs.images, region_weights=torch.full((4, 4, 4), 1 / 16)),
        reports=replace(outputs.reports, local_weights=mask / mask.sum(dim=1, keepdim=True)),
    )
    ablated, equal, weighted = method.loss(outputs), whole.loss(alike), whole.loss(outputs)
    for term in WEIGHT_OF:
        torch.testing.assert_close(ablated[term], equal[term])
    assert ablated["global"] == weighted["global"]
    assert ablated["local_image"] != weighted["local_image"]
    assert ablated["local_report"] != weighted["local_report"]


def test_without_attention_pooling_regions_are_averaged_and_sentences_maximised() -> None:
    whole, method = lovt(), lovt("no attention pooling").eval()
    gone = whole.state_dict().keys() - method.state_dict().keys()
    assert {name.split(".")[0] for name in gone} == {"region_pooling", "sentence_pooling"}
    assert method.state_dict().keys() <= whole.state_dict().keys()
    outputs = method(batch())
    mean = method.feature_map(batch().images).mean(dim=(2, 3))
    torch.testing.assert_close(outputs.images.image, method.image_projection(mean))
    report = batch().report
    sentences = method.report_encoder(
        report.token_ids, report.token_mask, report.sentence_index, report.sentence_mask
    )
    highest = sentences.masked_fill(~report.sentence_mask[..., None], -torch.inf).amax(dim=1)
    torch.testing.assert_close(outputs.reports.report, method.report_projection(highest))
    torch.testing.assert_close(outputs.images.region_weights, torch.full((4, 4, 4), 1 / 16))
    gradients(method)


def test_without_the_spatial_prior_a_region_is_its_only_positive() -> None:
    """The loss is then the one for sentences: identity positives."""
    whole, method = lovt(), lovt("no spatial prior")
    outputs = method(batch())
    regions = outputs.images.regions.flatten(1, 2)
    swapped = replace(
        outputs,
        reports=replace(
            outputs.reports,
            local=regions,
            local_mask=torch.ones(4, 16, dtype=torch.bool),
            local_weights=outputs.images.region_weights.flatten(1),
        ),
        sentences_from_image=outputs.regions_from_report,
    )
    expected = method.loss(swapped)["local_report"]
    torch.testing.assert_close(method.loss(outputs)["local_image"], expected)
    assert whole.loss(outputs)["local_image"] != expected


def test_a_single_sentence_is_a_choice_of_the_data() -> None:
    """Nothing is then left to tell the sentence from, and the local report loss is 0."""
    config = profile("single sentence")
    assert config.method == profile().method
    report = batch().report
    first = replace(
        batch(),
        report=replace(
            report,
            sentence_mask=report.sentence_mask[:, :1],
            sentence_index=torch.where(report.sentence_index == 0, 0, -1),
        ),
    )
    method = lovt("single sentence")
    terms = method.loss(method(first))
    assert terms["local_report"].item() == 0
    assert terms["local_image"] > 0
