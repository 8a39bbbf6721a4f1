"""LIMITR's second view: studies that have one, and those that do not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from distributed_pretrain.batch import Lateral
from distributed_pretrain.models.positions import grid_positions
from tests.tiny.batches import pairs_of_words
from tests.tiny.methods import state_after_step, tiny_limitr
from tests.tiny.sizes import IMAGE_ENCODER, REPORT_ENCODER

DIM = REPORT_ENCODER["hidden_size"]


def test_an_image_is_the_mean_of_its_views() -> None:
    model, batch = tiny_limitr().eval(), pairs_of_words(3, laterals=(True, False, True))
    images = model.embed_images(batch)
    frontal, _ = model.heads(model.image_encoder.tokens(batch.images))
    assert model.lateral_encoder is not None
    assert batch.lateral is not None
    lateral, regions = model.lateral_heads(model.lateral_encoder.tokens(batch.lateral.images))
    torch.testing.assert_close(images.image[::2], (frontal + lateral)[::2] / 2)
    torch.testing.assert_close(images.image[1], frontal[1])
    expected = regions + grid_positions(3, 3, DIM)
    assert images.lateral_regions is not None
    torch.testing.assert_close(images.lateral_regions[::2], expected[::2])
    assert images.lateral_mask is not None
    assert images.lateral_mask.tolist() == [True, False, True]


@pytest.mark.parametrize("variant", ["paper", "authors"])
def test_what_stands_where_a_lateral_is_missing_means_nothing(variant: str) -> None:
    batch = pairs_of_words(4, laterals=(True, False, True, False))
    assert batch.lateral is not None
    images, mask = batch.lateral.images, batch.lateral.mask
    nothing = torch.where(mask[:, None, None, None], images, math.nan)
    states = []
    for pixels in (images, nothing):
        model = tiny_limitr(variant=variant, image_encoder=IMAGE_ENCODER | {"norm": "sync"})
        torch.manual_seed(0)
        states.append(state_after_step(model, replace(batch, lateral=Lateral(pixels, mask))))
    for name, expected in states[0].items():
        assert torch.equal(states[1][name], expected), name


@pytest.mark.parametrize("variant", ["paper", "authors"])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("norm", ["sync", "local", "group", "frozen"])
def test_without_any_lateral_its_tower_gets_zeros_and_keeps_its_statistics(
    variant: str, rows: int, norm: str
) -> None:
    model = tiny_limitr(variant=variant, image_encoder=IMAGE_ENCODER | {"norm": norm})
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    state = state_after_step(model.train(), pairs_of_words(rows, laterals=(False,) * rows))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    for name in trained:
        gradient = state[f"gradient {name}"]
        assert gradient.isfinite().all(), name
        if name.startswith("lateral_"):
            assert not gradient.any(), name
    assert any(name.startswith("lateral_encoder") for name in trained)
    for name, buffer in before.items():
        if name.startswith("lateral_"):
            assert torch.equal(state[f"buffer {name}"], buffer), name
    assert model.lateral_encoder is not None
    assert model.lateral_encoder.training
    if rows == 1:
        for name in ("loss external", "loss global"):
            assert state[name].item() == pytest.approx(0, abs=1e-9)


def test_a_missing_lateral_is_masked_out_in_the_paper_and_dilutes_with_the_authors() -> None:
    """Without laterals the paper's model is the one for frontal views."""
    batch = pairs_of_words(4, laterals=(False,) * 4)
    for variant in ("paper", "authors"):
        both = tiny_limitr(variant=variant).eval()
        frontal = tiny_limitr(variant=variant, lateral=False).eval()
        frontal.load_state_dict(both.state_dict(), strict=False)
        with_fillers, without = (
            model.similarity(model.embed_images(batch), model.embed_reports(batch.report))
            for model in (both, frontal)
        )
        assert torch.allclose(with_fillers, without, rtol=1e-9) == (variant == "paper")
