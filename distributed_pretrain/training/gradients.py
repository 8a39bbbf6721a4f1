"""The gradients of one global batch, in one pass or in micro-batches with or without caching.

Exact accumulation is gradient caching (GradCache, arXiv:2101.06983): a first pass without
gradients collects what the losses between samples compare; these losses and their gradients with
respect to it are computed once for the whole batch; a second pass repeats each micro-batch's
forward with the same random numbers and sends the cached gradients back through it, together
with the gradient of the losses within samples. The sum is the gradient of the whole batch
wherever a sample's outputs depend on that sample alone: with frozen or group norms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.objective import Contrasted, Objective, sum_of
from distributed_pretrain.ranks import mean_over_ranks
from distributed_pretrain.training.compiling import check_passes
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.kept_buffers import KeptBuffers

# The name of several batch terms' common gradient where they need not be told apart.
_CONTRASTED = "contrasted"
# Gradients of one micro-batch by term and what is compared.
_Cached = dict[str, dict[str, Tensor]]


@dataclass
class StepGradients:
    """What is known of a step once its gradients stand in the parameters.

    `terms` are this rank's loss terms, means over its micro-batches. `finite_rows` says of each
    of this rank's samples whether its own outputs were finite. `norms` are the lengths of the
    weighted terms' gradients, averaged over ranks as the update's is, where they were asked for.
    """

    terms: dict[str, Tensor] = field(default_factory=dict)
    finite_rows: list[Tensor] = field(default_factory=list)
    norms: dict[str, Tensor] = field(default_factory=dict)


def accumulate_gradients(
    engine: Engine,
    micro_batches: list[Batch],
    *,
    exact: bool,
    seed: int,
    measure_norms: bool,
    groups: Sequence[int] | None = None,
) -> StepGradients:
    """Leave the gradient of the step's loss in the parameters.

    Micro-batch i draws its dropout from `seed` + i. With `exact` the batch terms are those of
    all micro-batches together; otherwise the loss is the mean of the micro-batches' own, or of
    those of their `groups`, which are normalised and compared as if each were one: equal parts of
    all rows, so many in each micro-batch.
    """
    objective, count = engine.objective, len(micro_batches)
    groups = groups or [1] * count
    result = StepGradients()
    cached: list[_Cached] | None = None
    first: list[Contrasted] = []
    if exact and count > 1 and objective.contrasts_samples:
        result.terms, cached, first = _first_pass(engine, micro_batches, seed, apart=measure_norms)
    by_term: dict[str, Tensor] = {}
    with engine.kept_casts():
        for number, batch in enumerate(micro_batches):
            with engine.micro_batch(last=number == count - 1):
                _seed(seed + number, engine.device)
                outputs = engine.forward(batch, groups=groups[number])
                contrasted = objective.contrasted(outputs)
                result.finite_rows.append(_finite_rows(contrasted, batch))
                terms = objective.sample_terms(outputs)
                if first and engine.compares_passes:
                    check_passes(first[number], contrasted)
                if cached is None:
                    terms = terms_of_groups(objective, contrasted, groups[number]) | terms
                shares = sum(groups) / groups[number]
                for name, term in terms.items():
                    result.terms[name] = result.terms.get(name, 0) + term.detach() / shares
                parts = {name: term / shares for name, term in objective.weighted(terms).items()}
                if cached is not None:
                    # Scalars whose gradients are the cached ones.
                    compared = contrasted.rows | contrasted.shared
                    for loss_name, of in cached[number].items():
                        products = {name: (compared[name] * own).sum() for name, own in of.items()}
                        parts[loss_name] = sum_of(products)
                if measure_norms:
                    _add_gradients(by_term, parts, engine)
                engine.backward(sum_of(parts))
    engine.compares_passes = False
    result.norms = {name: mean_over_ranks(flat).norm() for name, flat in by_term.items()}
    total = sum_of(objective.weighted(result.terms))
    result.terms = {"total": total, **{name: result.terms[name] for name in objective.term_weights}}
    return result


def _seed(seed: int, device: torch.device) -> None:
    """That of `torch.manual_seed` for the generators that a step draws from.

    Torch's own seeds all devices there might be, and keeps a traceback for each that is not there.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _first_pass(
    engine: Engine, micro_batches: list[Batch], seed: int, *, apart: bool
) -> tuple[dict[str, Tensor], list[_Cached], list[Contrasted]]:
    """The batch terms over all micro-batches, their gradients, and what was compared, by part."""
    objective, count = engine.objective, len(micro_batches)
    pieces = []
    statistics = KeptBuffers(objective.buffers())
    with torch.no_grad(), engine.autocast():
        for number, batch in enumerate(micro_batches):
            _seed(seed + number, engine.device)
            pieces.append(objective.contrasted(objective(batch)))
    statistics.put_back()  # they are for the second pass to update, once
    joint = Contrasted.joined(pieces)
    leaves = {
        name: tensor.requires_grad_()
        for name, tensor in (joint.rows | joint.shared).items()
        if tensor.is_floating_point()
    }
    terms = objective.batch_terms(**joint.by_name)
    weighted = objective.weighted(terms)
    losses = weighted if apart else {_CONTRASTED: sum_of(weighted)}
    gradients: list[_Cached] = [{} for _ in micro_batches]
    for loss_name, loss in losses.items():
        found = torch.autograd.grad(
            engine.scaled(loss), list(leaves.values()), retain_graph=apart, materialize_grads=True
        )
        found = tuple(map(engine.unscaled, found))
        parts = [
            _of_pieces(gradient, [piece.rows[name] for piece in pieces])
            if name in joint.rows
            else [gradient / count] * count
            for name, gradient in zip(leaves, found, strict=True)
        ]
        for of_batch, own in zip(gradients, zip(*parts, strict=True), strict=True):
            of_batch[loss_name] = dict(zip(leaves, own, strict=True))
    return {name: term.detach() for name, term in terms.items()}, gradients, pieces


def terms_of_groups(objective: Objective, contrasted: Contrasted, groups: int) -> dict[str, Tensor]:
    """The batch terms, each the mean over equal groups of rows that lie one after another."""
    found = [objective.batch_terms(**each.by_name) for each in contrasted.chunks(groups)]
    if groups == 1:
        return found[0]
    return {name: torch.stack([each[name] for each in found]).mean() for name in found[0]}


def loss_of_groups(objective: Objective, outputs: Any, groups: int) -> Tensor:
    """The loss of one micro-batch, whose groups of rows are compared alone."""
    terms = terms_of_groups(objective, objective.contrasted(outputs), groups)
    return sum_of(objective.weighted(terms | objective.sample_terms(outputs)))


def _of_pieces(gradient: Tensor, rows: list[Tensor]) -> list[Tensor]:
    """The gradient of padded and joined rows, cut into those of each piece."""
    parts = gradient.split([len(each) for each in rows])
    return [part[_corner(each)] for part, each in zip(parts, rows, strict=True)]


def _corner(like: Tensor) -> tuple[slice, ...]:
    return tuple(slice(size) for size in like.shape)


def _add_gradients(sums: dict[str, Tensor], parts: dict[str, Tensor], engine: Engine) -> None:
    """Add each part's parameter gradients to its sum, leaving `.grad` alone."""
    for name, part in parts.items():
        gradients = torch.autograd.grad(
            engine.scaled(part), engine.parameters, retain_graph=True, materialize_grads=True
        )
        flat = engine.unscaled(torch.cat([gradient.flatten() for gradient in gradients]))
        sums[name] = sums[name] + flat if name in sums else flat


def _finite_rows(contrasted: Contrasted, batch: Batch) -> Tensor:
    """Which samples have finite outputs, as far as what is compared between samples tells."""
    finite = torch.ones_like(batch.sample_mask)
    for tensor in contrasted.rows.values():
        if tensor.is_floating_point():
            finite &= tensor.detach().isfinite()[:, None].flatten(1).all(dim=1)
    return finite
