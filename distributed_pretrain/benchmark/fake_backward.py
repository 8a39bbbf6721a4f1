"""Backward over fake tensors: autograd's engine refuses those of a GPU that is not there.

The nodes of the graph are autograd's own, C++'s and the hand-written ones alike; only their order,
and the sums where paths meet, are made here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

# Autograd's node, or a hand-written function's context: both know the nodes that come next.
_Node = Any


@torch.no_grad()
def run_backward(
    outputs: Sequence[Tensor],
    gradients: Sequence[Tensor],
    _keep_graph: bool,
    create_graph: bool,
    inputs: Sequence[Tensor],
    allow_unreachable: bool = False,
    *,
    accumulate_grad: bool,
) -> tuple[Tensor | None, ...]:
    """What `torch.autograd.graph._engine_run_backward` returns and does, with its arguments.

    Every node gives gradients of its inputs' shapes, types and devices, as the engine has them.
    Raises AssertionError where one gives a gradient on another device, and for what the product
    does not do: gradients of gradients, and `backward` to some tensors alone.
    """
    assert not create_graph, "no gradients of gradients"
    assert accumulate_grad is not bool(inputs), "backward to some tensors alone"
    roots = [get_gradient_edge(each) for each in outputs]
    wanted = [(edge.node, edge.output_nr) for edge in map(get_gradient_edge, inputs)]
    arrived: dict[_Node, list[Tensor | None]] = {}
    for root, gradient in zip(roots, gradients, strict=True):
        _add(arrived, root.node, root.output_nr, gradient)
    found: dict[tuple[_Node, int], Tensor | None] = {}
    for node in in_order([root.node for root in roots]):
        sums = arrived.pop(node, None)
        if sums is None:
            continue
        for asked, number in wanted:
            if asked is node:
                found[node, number] = sums[number]
        if accumulate_grad or not hasattr(node, "variable"):
            for (following, number), own in zip(_edges(node), _call(node, sums), strict=True):
                if following is not None and own is not None:
                    _add(arrived, following, number, own)
    assert allow_unreachable or found.keys() >= set(wanted), "not in the graph"
    return tuple(map(found.get, wanted))


def in_order(roots: Sequence[_Node]) -> Iterator[_Node]:
    """Each node that can be reached, after all that send it a gradient."""
    senders: Counter[_Node] = Counter()
    seen, waiting = set(roots), list(roots)
    while waiting:
        for following, _ in waiting.pop().next_functions:
            if following is not None:
                senders[following] += 1
                if following not in seen:
                    seen.add(following)
                    waiting.append(following)
    ready = [node for node in dict.fromkeys(roots) if not senders[node]]
    while ready:
        node = ready.pop()
        yield node
        for following, _ in node.next_functions:
            if following is not None:
                senders[following] -= 1
                if not senders[following]:
                    ready.append(following)


def _edges(node: _Node) -> Sequence[tuple[_Node | None, int]]:
    edges: Sequence[tuple[_Node | None, int]] = node.next_functions
    if hasattr(node, "needs_input_grad"):
        # A hand-written function returns something for arguments that are no tensors, too.
        own = iter([edge for edge in edges if edge[0] is not None])
        edges = [next(own) if needed else (None, 0) for needed in node.needs_input_grad]
    return edges


def _call(node: _Node, gradients: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    own = [
        _zeros(meta) if gradient is None else gradient
        for gradient, meta in zip(gradients, node._input_metadata, strict=True)
    ]
    result = node.apply(*own) if hasattr(node, "needs_input_grad") else node(*own)
    return result if isinstance(result, tuple) else (result,)


def _zeros(output: Any) -> Tensor | None:
    """The gradient of an output that nothing came from; None for one that was None itself."""
    # Of which autograd says what it says of a number on the host.
    if output.device.type == "cpu" and not output.shape:
        return None
    return torch.zeros(tuple(output.shape), dtype=output.dtype, device=output.device)


def _add(
    arrived: dict[_Node, list[Tensor | None]], node: _Node, number: int, gradient: Tensor
) -> None:
    meta = node._input_metadata[number]
    assert gradient.device == meta.device, f"{node}: {gradient.device}, not {meta.device}"
    gradient = gradient.sum_to_size(tuple(meta.shape)).to(meta.dtype)
    sums = arrived.setdefault(node, [None] * len(node._input_metadata))
    before = sums[number]
    sums[number] = gradient if before is None else before + gradient
