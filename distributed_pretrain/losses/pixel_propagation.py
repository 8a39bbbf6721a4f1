"""PixPro's consistency between cells of two views that show the same place (Xie et al. 2021)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distributed_pretrain.losses.precision import full_precision, unit_vectors

# B batch, R regions of the first view, Q regions of the second, D dim.


@torch.no_grad()
def matching_regions(
    first_to_image: Float[Tensor, "batch 2 3"],
    second_to_image: Float[Tensor, "batch 2 3"],
    *,
    grid: tuple[int, int],
    threshold: float = 0.7,
) -> Bool[Tensor, "batch regions regions"]:
    """Whether region i of the first view and region j of the second lie at the same place.

    Each view comes with the affine map from its own coordinates (x, y from 0 to 1) to those of the
    image, in any unit that is the same along x and y. Regions are the cells of the row-major
    `grid` (rows, columns). Two match if their centres are nearer in the image than `threshold`
    times the diagonal of a cell, that of the view with the larger cells (the paper's T = 0.7).
    Rotated and mirrored views are compared by where they came from, so need nothing special.
    """
    # In float64, which autocast leaves alone: the threshold should not fall on rounding.
    first_BR2, first_diagonal_B = _centres_in_image(first_to_image.double(), grid)
    second_BQ2, second_diagonal_B = _centres_in_image(second_to_image.double(), grid)
    distance_BRQ = (first_BR2[:, :, None] - second_BQ2[:, None]).norm(dim=-1)
    diagonal_B = torch.maximum(first_diagonal_B, second_diagonal_B)
    matches: Tensor = distance_BRQ < threshold * diagonal_B[:, None, None]
    return matches


def pixel_propagation_by_image(
    first_propagated: Float[Tensor, "batch regions dim"],
    second_propagated: Float[Tensor, "batch regions dim"],
    first_target: Float[Tensor, "batch regions dim"],
    second_target: Float[Tensor, "batch regions dim"],
    matches: Bool[Tensor, "batch regions regions"],
    *,
    sample_mask: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, " batch"]:
    """Eq 6 of each image, from -2 to 2: the mean over its matching pairs, 0 without any.

    A pair (i, j) of `matches` yields -cos(y_i, x'_j) - cos(y'_j, x_i), where y, y' are the
    propagated regions of the first and second view and x, x' the teacher's; no gradient flows into
    these targets. The loss is the mean over the images with a match, of all ranks: views that do
    not overlap say nothing, where the authors count them as 0. Images whose `sample_mask` is
    False give 0 and get no gradient.
    """
    with full_precision(first_propagated):
        region_mask = None
        if sample_mask is not None:
            region_mask = sample_mask[:, None].expand(first_propagated.shape[:2])
            matches = matches & sample_mask[:, None, None]
        y_first_BRD, y_second_BQD = (
            unit_vectors(each, region_mask) for each in (first_propagated, second_propagated)
        )
        x_first_BRD, x_second_BQD = (
            unit_vectors(each.detach(), region_mask) for each in (first_target, second_target)
        )
        agreement_BRQ = y_first_BRD @ x_second_BQD.mT + x_first_BRD @ y_second_BQD.mT
        total_B = torch.where(matches, agreement_BRQ, 0.0).sum(dim=(1, 2))
        return -total_B / matches.sum(dim=(1, 2)).clamp(min=1)


def _centres_in_image(to_image: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Centres of the cells (B, R, 2) and the length of a cell's diagonal (B,), in the image."""
    # Made where they are needed: numbers of the host would be waited for.
    rows, columns = grid
    row_R, column_R = (
        (torch.arange(count, dtype=torch.float64, device=to_image.device) + 0.5) / count
        for count in grid
    )
    y_R, x_R = row_R.repeat_interleave(columns), column_R.repeat(rows)
    linear_B22, offset_B2 = to_image[..., :2], to_image[..., 2]
    centres_R2 = torch.stack([x_R, y_R], dim=-1).to(to_image)
    centres_BR2 = centres_R2 @ linear_B22.mT + offset_B2[:, None]
    # The sides of a cell are the columns of this matrix. The root of their squares' sum is the
    # diagonal of a rectangle, and the mean of both diagonals (of squares) where the map shears.
    sides_B22 = torch.stack([linear_B22[..., 0] / columns, linear_B22[..., 1] / rows], dim=-1)
    return centres_BR2, sides_B22.square().sum(dim=(1, 2)).sqrt()
