"""What a term learns from the image, by the images of other studies."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from distributed_pretrain.batch import Batch
from distributed_pretrain.measures.base import Context
from distributed_pretrain.measures.other_images import OtherImages, next_real_rows
from distributed_pretrain.methods.image_text import ImageTextMethod
from tests.tiny.batches import pairs_of_words, random_batch
from tests.tiny.methods import tiny_limitr, tiny_method, tiny_profile

LOCAL = {
    "phantom_lovt": {"local_image", "local_report"},
    "phantom_lovt_regions": {"pair"},
    "phantom_gloria": {"local"},
    "phantom_limitr": {"external", "internal"},
    "phantom_gloria_regions": {"local", "pair"},
    "phantom_limitr_regions": {"external", "internal", "pair"},
    "phantom_mgca": {"token"},
    "phantom_mgca_regions": {"token", "word_region"},
}


def method_and_batch(profile: str, samples: int = 5) -> tuple[ImageTextMethod, Batch]:
    config = tiny_profile(profile)
    method = tiny_method(config).eval()
    assert isinstance(method, ImageTextMethod)
    return method, random_batch(config, samples)


@torch.no_grad()
def measured(method: ImageTextMethod, *batches: Batch) -> dict[str, float]:
    measure = OtherImages(Context(objective=method, device=torch.device("cpu")))
    for batch in batches:
        measure.update(batch, method(batch))
    figures = measure.compute()
    assert figures.keys() <= {metric.name for metric in measure.metrics}
    return figures


@pytest.mark.parametrize(
    ("profile", "weight", "left"),
    [
        ("phantom_lovt", "local_image_weight", ("local_report",)),
        ("phantom_gloria_regions", "local_weight", ("pair",)),
        ("phantom_limitr", "internal_weight", ("external",)),
        ("phantom_mgca", "token_weight", ()),
    ],
)
def test_a_term_of_weight_0_is_not_asked(profile: str, weight: str, left: tuple[str, ...]) -> None:
    config = tiny_profile(profile)
    method = tiny_method(
        config.model_copy(update={"method": config.method.model_copy(update={weight: 0})})
    )
    assert isinstance(method, ImageTextMethod)
    assert method.local_terms == left
    assert OtherImages.applies(method) == bool(left)


@pytest.mark.parametrize("profile", LOCAL)
@torch.no_grad()
def test_each_local_term_is_that_of_the_next_studys_image(profile: str) -> None:
    method, batch = method_and_batch(profile)
    turned = [1, 2, 3, 4, 0]
    images = method.embed_images(batch).map_tensors(lambda rows: rows[turned])
    outputs = method(batch)
    own = method.loss(outputs)
    other = method.loss(method.paired(images, outputs.reports, batch.sample_mask))
    figures = measured(method, batch)
    assert len(figures) == 2 * len(LOCAL[profile])
    assert {name.removesuffix("_other_image") for name in figures if "other" in name} == LOCAL[
        profile
    ]
    for name in LOCAL[profile]:
        assert figures[f"{name}_other_image"] == pytest.approx(other[name].item(), rel=1e-5)
        gap = (other[name] - own[name]).item()
        assert figures[f"{name}_from_image"] == pytest.approx(gap, abs=1e-5)


def test_rows_that_fill_up_a_batch_lend_nobody_their_image() -> None:
    mask = torch.tensor([False, True, True, False, True])
    assert next_real_rows(mask).tolist() == [0, 2, 4, 3, 1]
    assert next_real_rows(torch.tensor([False, True])).tolist() == [0, 1]
    assert next_real_rows(torch.zeros(2, dtype=torch.bool)).tolist() == [0, 1]


@torch.no_grad()
def test_padding_and_batches_of_one_change_nothing() -> None:
    method, batch = method_and_batch("phantom_lovt_regions")
    expected = measured(method, batch.rows(slice(0, 3)))
    real = torch.tensor([True] * 3 + [False] * 2)
    assert measured(method, replace(batch, sample_mask=real)) == pytest.approx(
        expected, rel=1e-4, abs=1e-5
    )
    one = batch.rows(slice(0, 1))
    assert measured(method, batch.rows(slice(0, 3)), one) == expected
    assert measured(method, one) == {}


@torch.no_grad()
def test_which_studies_have_a_lateral_is_known_of_the_images_beside_the_reports() -> None:
    """Numbers of regions travel on the host; those of the own images would cut the others'."""
    laterals = (True, True, True, False, False)
    method = tiny_limitr(chunk_size=4).eval()
    batch = pairs_of_words(5, laterals=laterals)
    assert batch.lateral is not None
    expected = measured(method, batch)
    known = replace(batch, real=(True,) * 5, lateral=replace(batch.lateral, present=laterals))
    assert "region_counts" in method.contrasted(method(known)).counts
    assert measured(method, known) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("profile", ["phantom_lovt", "phantom_lovt_regions"])
@torch.no_grad()
def test_regions_that_do_not_depend_on_the_image_learn_nothing_from_it(profile: str) -> None:
    method, batch = method_and_batch(profile)
    blind = replace(batch, images=torch.zeros_like(batch.images))
    figures = measured(method, blind)
    gaps = [each for name, each in figures.items() if name.endswith("_from_image")]
    assert gaps == pytest.approx([0.0] * len(LOCAL[profile]), abs=1e-5)
