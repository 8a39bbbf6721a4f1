"""Losses and statistics in at least float32, whatever autocast or the inputs' dtype says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

Rows: TypeAlias = Float[Tensor, "*rows dim"]
RowMask: TypeAlias = Bool[Tensor, "*rows"]


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context in which autocast lowers nothing on the device of `tensor`."""
    return torch.autocast(tensor.device.type, enabled=False)


@contextlib.contextmanager
def whole_float32_products() -> Iterator[None]:
    """Products with all bits of float32 on a GPU, where TF32 would keep 10.

    For logits: an error of 2^-11 of a cosine, divided by a temperature of 0.07, is 1 % of a
    probability.
    """
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        yield
    finally:
        matmul.allow_tf32 = before


def at_least_float32(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """`values` with half precision raised to float32; float32 and float64 stay as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def zero_where_padded(values: Rows, mask: RowMask | None) -> Rows:
    """`values` with zeros in the rows whose mask is False, which get a zero gradient.

    Selecting keeps even NaN out of what follows; multiplying by the mask would not.
    """
    return values if mask is None else torch.where(mask.unsqueeze(-1), values, 0.0)


def unit_vectors(values: Rows, mask: RowMask | None = None) -> Rows:
    """`values` scaled to length 1, in at least float32; zeros where the mask is False."""
    return F.normalize(zero_where_padded(at_least_float32(values), mask), dim=-1)


def without_columns(
    logits: Float[Tensor, "*rows columns"], column_mask: Bool[Tensor, "*#rows columns"] | None
) -> Float[Tensor, "*rows columns"]:
    """`logits` with masked columns so low that a softmax over the columns gives them exactly 0.

    The lowest finite number rather than -inf, so that a row with no column at all stays finite.
    """
    if column_mask is None:
        return logits
    return logits.masked_fill(~column_mask, torch.finfo(logits.dtype).min)
