"""YOLOv3's loss: boxes as cells and anchors of a map, and what is predicted for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from distributed_pretrain.losses.precision import at_least_float32, full_precision

# Anchors that overlap a box by more are no negatives at its centre.
_IGNORED_IOU = 0.5
_SMALL = 1e-16


@dataclass(frozen=True)
class AnchorRules:
    """How boxes become targets, where LoVT's authors differ from YOLOv3.

    `best_scale`: a box is a positive at the scale of the anchor that is most like it, alone; else
    at every scale, at the best of its anchors. `exact_iou`: shapes overlap as they are; else in
    cells, and one cell longer each way. `excludes_positives`: a positive is never a negative too;
    else it stays one where no anchor overlaps it by more than a half.
    """

    best_scale: bool = True
    exact_iou: bool = True
    excludes_positives: bool = True


@dataclass(frozen=True)
class AnchorTargets:
    """What one scale is to predict; the numbers mean something where `positive` is True."""

    positive: Bool[Tensor, "batch anchors rows columns"]
    negative: Bool[Tensor, "batch anchors rows columns"]
    offset: Float[Tensor, "batch anchors rows columns 2"]  # of the centre in its cell, (x, y)
    log_size: Float[Tensor, "batch anchors rows columns 2"]  # ln of the box's sides by the anchor's
    category: Int[Tensor, "batch anchors rows columns"]


def shape_ious(
    sizes: Float[Tensor, "*boxes 2"], anchors: Float[Tensor, "anchors 2"], *, longer: float = 0.0
) -> Float[Tensor, "*boxes anchors"]:
    """The IoU of boxes with anchors that have the same corner, all sides `longer` than they are."""
    own, others = sizes.unsqueeze(-2) + longer, anchors + longer
    both = torch.minimum(own, others).prod(dim=-1)
    return both / (own.prod(dim=-1) + others.prod(dim=-1) - both).clamp_min(_SMALL)


def anchor_targets(
    corners: Float[Tensor, "batch most 4"],
    category: Int[Tensor, "batch most"],
    present: Bool[Tensor, "batch most"],
    *,
    anchors: Float[Tensor, "scales anchors 2"],
    scale: int,
    stride: int,
    cells: int,
    rules: AnchorRules,
) -> AnchorTargets:
    """The targets of one scale, whose map has `cells` x `cells` cells of `stride` pixels.

    `corners` and `anchors` are in pixels. A box is at the cell of its centre, the nearest where
    that is outside; of two at the same cell and anchor the later one counts.
    """
    batch, most = present.shape
    # A place without a box may hold anything.
    corners = torch.where(present.unsqueeze(-1), corners, 0.0)
    sizes = (corners[..., 2:] - corners[..., :2]).clamp_min(_SMALL)
    centres = (corners[..., :2] + corners[..., 2:]) / 2 / stride
    at = centres.floor().clamp(0, cells - 1)
    own = anchors[scale]
    if rules.exact_iou:
        ious = shape_ious(sizes, own)
    else:
        ious = shape_ious(sizes / stride, own / stride, longer=1.0)
    best = ious.argmax(dim=-1)
    wanted = present
    if rules.best_scale:
        all_ious = shape_ious(sizes, anchors.flatten(0, 1))
        wanted = present & (all_ious.argmax(dim=-1) // len(own) == scale)
    shape = (batch, len(own), cells, cells)
    positive = torch.zeros(shape, dtype=torch.bool, device=corners.device)
    negative = torch.ones_like(positive)
    offset = corners.new_zeros(*shape, 2)
    log_size = corners.new_zeros(*shape, 2)
    category_at = category.new_zeros(shape)
    rows = torch.arange(batch, device=corners.device)
    # One box of each image at a time, for the later one counts. Chosen by `where`: for nonzero the
    # host would wait.
    for number in range(most):
        x, y = at[:, number].long().unbind(dim=-1)
        ignored = (ious[:, number] > _IGNORED_IOU) & present[:, number, None]
        negative[rows, :, y, x] &= ~ignored
        taken, place = wanted[:, number], (rows, best[:, number], y, x)
        log_ratio = torch.log(sizes[:, number] / own[best[:, number]] + _SMALL)
        positive[place] |= taken
        for kept, value in (
            (offset, centres[:, number] - at[:, number]),
            (log_size, log_ratio),
            (category_at, category[:, number]),
        ):
            chosen = taken if value.dim() == 1 else taken[:, None]
            kept[place] = torch.where(chosen, value, kept[place])
    if rules.excludes_positives:
        negative = negative & ~positive
    return AnchorTargets(positive, negative, offset, log_size, category_at)


def anchor_terms(
    predictions: Float[Tensor, "batch channels cells cells"], targets: AnchorTargets
) -> dict[str, Float[Tensor, " batch"]]:
    """The terms of one scale for each image, every one a mean over all anchors and cells.

    `channels` are anchors x (x, y, width, height, object, classes ...). `position` is the cross
    entropy of the centre's offset and `size` the squared error of the logarithms, each summed over
    both directions, at positives; `object` and `background` are -ln σ at positives and -ln(1 - σ)
    at negatives; `category` is the cross entropy summed over the classes, at positives, 0 where
    there is one. Of logits throughout: the authors' probabilities stop learning where they are
    sure and wrong.
    """
    anchors = targets.positive.shape[1]
    with full_precision(predictions):
        found = at_least_float32(predictions).unflatten(1, (anchors, -1)).movedim(2, -1)
        centre, log_size, objects, classes = found.split([2, 2, 1, found.shape[-1] - 5], dim=-1)
        objects = objects.squeeze(-1)
        ones = torch.ones_like(objects)
        cross_entropy = F.binary_cross_entropy_with_logits
        offset = targets.offset.to(found.dtype)
        at_positives = {
            "position": cross_entropy(centre, offset, reduction="none").sum(dim=-1),
            "size": (log_size - targets.log_size).square().sum(dim=-1),
            "object": cross_entropy(objects, ones, reduction="none"),
        }
        if classes.shape[-1] > 1:
            of_class = F.one_hot(targets.category, classes.shape[-1]).to(found.dtype)
            each = cross_entropy(classes, of_class, reduction="none")
            at_positives["category"] = each.sum(dim=-1)
        background = cross_entropy(objects, torch.zeros_like(objects), reduction="none")
        values = {
            name: torch.where(targets.positive, each, 0.0) for name, each in at_positives.items()
        }
        values["background"] = torch.where(targets.negative, background, 0.0)
        return {name: each.flatten(1).mean(dim=1) for name, each in values.items()}
