"""PixPro: which regions match, its loss and its propagation module."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distributed_pretrain.losses.pixel_propagation import (
    matching_regions,
    pixel_propagation_by_image,
)
from distributed_pretrain.models.heads import PixelPropagation
from distributed_pretrain.ranks import mean_over_samples

IDENTITY = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
MIRRORED = [[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
QUARTER_TURN = [[0.0, -1.0, 1.0], [1.0, 0.0, 0.0]]


def pixel_propagation_loss(
    y: Tensor,
    y_other: Tensor,
    x: Tensor,
    x_other: Tensor,
    matches: Tensor,
    sample_mask: Tensor | None = None,
) -> Tensor:
    """As `Pixelpro` joins it: the mean over the images with matches."""
    by_image = pixel_propagation_by_image(y, y_other, x, x_other, matches, sample_mask=sample_mask)
    found = matches.flatten(1).any(dim=1)
    return mean_over_samples(by_image, found if sample_mask is None else found & sample_mask)


def maps(*rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def crop(left: float, top: float, width: float, height: float) -> list[list[float]]:
    return [[width, 0.0, left], [0.0, height, top]]


def vectors(count: int, *, batch: int = 3, regions: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    drawn = torch.randn(count, batch, regions, 6, generator=generator, dtype=torch.float64)
    return [each.clone().requires_grad_() for each in drawn]


def loss_of(inputs: list[Tensor], matches: Tensor, sample_mask: Tensor | None = None) -> Tensor:
    y, y_other, x, x_other = inputs
    return pixel_propagation_loss(y, y_other, x, x_other, matches, sample_mask=sample_mask)


def some_matches() -> Tensor:
    """Of three images: the second has no pair."""
    matches = torch.zeros(3, 4, 4, dtype=torch.bool)
    matches[0, 0, 1] = matches[0, 3, 2] = matches[2, 1, 1] = matches[2, 1, 2] = True
    return matches


def test_regions_of_the_same_view_match_themselves_alone() -> None:
    # Neighbours are 1 / sqrt(2) = 0.707 of a diagonal away, beyond 0.7.
    matches = matching_regions(maps(IDENTITY), maps(IDENTITY), grid=(5, 5))
    assert torch.equal(matches[0], torch.eye(25, dtype=torch.bool))


def test_a_higher_threshold_takes_neighbours_in() -> None:
    matches = matching_regions(maps(IDENTITY), maps(IDENTITY), grid=(3, 3), threshold=0.8)
    assert matches[0].sum(dim=1).tolist() == [3, 4, 3, 4, 5, 4, 3, 4, 3]


@pytest.mark.parametrize("grid", [(2, 3), (7, 7)])
def test_matches_are_those_of_a_loop_over_the_cells(grid: tuple[int, int]) -> None:
    views = [(crop(0.1, 0.2, 0.6, 0.5), crop(0.3, 0.0, 0.5, 0.9)), (MIRRORED, IDENTITY)]
    matches = matching_regions(
        maps(*[first for first, _ in views]), maps(*[second for _, second in views]), grid=grid
    )
    rows, columns = grid
    cells = [((c + 0.5) / columns, (r + 0.5) / rows) for r in range(rows) for c in range(columns)]
    for image, (first, second) in enumerate(views):
        diagonal = max(math.hypot(m[0][0] / columns, m[1][1] / rows) for m in (first, second))
        for i, (x, y) in enumerate(cells):
            for j, (u, v) in enumerate(cells):
                distance = math.hypot(
                    first[0][0] * x + first[0][2] - second[0][0] * u - second[0][2],
                    first[1][1] * y + first[1][2] - second[1][1] * v - second[1][2],
                )
                assert bool(matches[image, i, j]) == (distance < 0.7 * diagonal)


def test_mirrored_and_turned_views_match_where_they_came_from() -> None:
    matches = matching_regions(maps(IDENTITY, IDENTITY), maps(MIRRORED, QUARTER_TURN), grid=(3, 3))
    grid = torch.arange(9).view(3, 3)
    assert matches.sum().item() == 18
    # Upper right of the image is the upper left of its mirror image.
    assert matches[0].int().argmax(dim=1).tolist() == grid.flip(1).flatten().tolist()
    # (x, y) of the turned view lies at (1 - y, x) of the image.
    assert matches[1].int().argmax(dim=1).tolist() == grid.flip(0).T.flatten().tolist()


def test_views_apart_have_no_matches() -> None:
    apart = matching_regions(maps(crop(0, 0, 0.4, 1)), maps(crop(0.6, 0, 0.4, 1)), grid=(7, 7))
    assert not apart.any()


def test_the_loss_is_equation_6_over_images_with_pairs() -> None:
    y, y_other, x, x_other = vectors(4)
    matches = some_matches()

    def cosine(a: Tensor, b: Tensor) -> Tensor:
        return torch.nn.functional.cosine_similarity(a, b, dim=0)

    images = []
    for image in (0, 2):
        pairs = [
            -cosine(y[image, i], x_other[image, j]) - cosine(y_other[image, j], x[image, i])
            for i, j in matches[image].nonzero().tolist()
        ]
        images.append(sum(pairs) / len(pairs))
    expected = torch.as_tensor(sum(images) / 2)
    torch.testing.assert_close(pixel_propagation_loss(y, y_other, x, x_other, matches), expected)


def test_right_predictions_give_minus_2_and_no_pair_gives_0() -> None:
    x, x_other = (each.detach() for each in vectors(2))
    matches = torch.eye(4, dtype=torch.bool).expand(3, 4, 4)
    best = pixel_propagation_loss(5 * x_other, x, x, x_other, matches)
    assert best.item() == pytest.approx(-2, rel=1e-12)
    y, y_other, *_ = vectors(2)
    nothing = pixel_propagation_loss(y, y_other, x, x_other, torch.zeros_like(matches))
    nothing.backward()
    assert nothing.item() == 0
    assert y.grad is not None
    assert not y.grad.any()


def test_only_propagated_regions_get_a_gradient() -> None:
    inputs = vectors(4)
    loss_of(inputs, some_matches()).backward()
    assert all(each.grad is not None and each.grad.any() for each in inputs[:2])
    assert all(each.grad is None for each in inputs[2:])


def test_loss_and_propagation_pass_the_gradient_check() -> None:
    y, y_other, x, x_other = vectors(4)
    targets = [each.detach() for each in (x, x_other)]

    def loss(y: Tensor, y_other: Tensor) -> Tensor:
        return loss_of([y, y_other, *targets], some_matches())

    assert torch.autograd.gradcheck(loss, (y, y_other))
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(PixelPropagation(6).double(), (x[:1],))


def test_masked_images_change_neither_loss_nor_gradient() -> None:
    inputs = vectors(4)
    loss = loss_of(inputs, some_matches())
    expected = torch.autograd.grad(loss, inputs[:2])
    nan = torch.full((1, 4, 6), math.nan, dtype=torch.float64)
    padded = [torch.cat([nan, each.detach()]).requires_grad_() for each in inputs]
    matches = torch.cat([torch.ones(1, 4, 4, dtype=torch.bool), some_matches()])
    mask = torch.tensor([False, True, True, True])
    masked = loss_of(padded, matches, mask)
    torch.testing.assert_close(masked, loss)
    for ours, theirs in zip(torch.autograd.grad(masked, padded[:2]), expected, strict=True):
        torch.testing.assert_close(ours[1:], theirs)
        assert not ours[0].any()


def test_propagation_is_equations_4_and_5() -> None:
    torch.manual_seed(0)
    module = PixelPropagation(6).double()
    (regions,) = vectors(1)
    propagated = module(regions)
    for image in range(3):
        for i in range(4):
            expected = torch.zeros(6, dtype=torch.float64)
            for j in range(4):
                one, other = regions[image, i], regions[image, j]
                cosine = one @ other / (one.norm() * other.norm())
                expected += cosine.detach().clamp(min=0) ** 2 * module.transform(other)
            torch.testing.assert_close(propagated[image, i], expected)


def test_a_region_unlike_all_others_is_only_transformed() -> None:
    module = PixelPropagation(4).double()
    regions = torch.eye(4, dtype=torch.float64)[None]
    torch.testing.assert_close(module(regions), module.transform(regions))


def test_propagation_runs_under_autocast() -> None:
    module = PixelPropagation(6)
    with torch.autocast("cpu", torch.bfloat16):
        propagated = module(vectors(1)[0].float())
    assert propagated.isfinite().all()
