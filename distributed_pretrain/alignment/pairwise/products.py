"""Products, softmaxes and precisions that the pair similarities share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distributed_pretrain.losses.precision import at_least_float32

_even_if_slow: ContextVar[bool] = ContextVar("bfloat16_even_if_slow", default=False)


def product_dtype(regions: Float[Tensor, ...], words: Float[Tensor, ...]) -> torch.dtype:
    """The dtype in which vectors are stored and multiplied: autocast's, else their own.

    Never float16, whose range the products of raw features leave; and float32 instead of bfloat16
    on a CPU without instructions for it, where it would take five times as long.
    """
    dtype = torch.promote_types(regions.dtype, words.dtype)
    device = regions.device.type
    if dtype == torch.float32 and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    if dtype == torch.float16:
        return torch.float32
    if dtype == torch.bfloat16 and device == "cpu":
        fast = cpu_multiplies_bfloat16() or _even_if_slow.get()
        return dtype if fast else torch.float32
    return dtype


@contextmanager
def bfloat16_even_if_slow() -> Iterator[None]:
    """Meanwhile a CPU without instructions for it multiplies bfloat16 too, to see its roundings."""
    token = _even_if_slow.set(True)
    try:
        yield
    finally:
        _even_if_slow.reset(token)


def as_factors(vectors: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """`vectors` in their `product_dtype`, for products that are taken after autocast has ended."""
    return vectors.to(product_dtype(vectors, vectors))


def cpu_multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16 (x86's two, or Arm's)."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def raw_scores(
    regions: Float[Tensor, "images regions dim"], words: Float[Tensor, "reports words dim"]
) -> Float[Tensor, "images regions reports words"]:
    """<region, word> of every pair, in at least float32: a softmax of large numbers needs that.

    A GPU multiplies bfloat16 as such and leaves the sums in float32. A CPU would round the sums,
    so there the factors are raised first.
    """
    flat_regions, flat_words = regions.flatten(0, 1), words.flatten(0, 1)
    if torch.bfloat16 == regions.dtype == words.dtype and regions.is_cuda:
        scores = torch.mm(flat_regions, flat_words.T, out_dtype=torch.float32)
    else:
        dtype = torch.promote_types(at_least_float32(regions).dtype, words.dtype)
        scores = flat_regions.to(dtype) @ flat_words.T.to(dtype)
    return scores.view(*regions.shape[:2], *words.shape[:2])


def add_product(
    total: Float[Tensor, "batch rows columns"],
    left: Float[Tensor, "batch rows inner"],
    right: Float[Tensor, "batch inner columns"],
) -> None:
    """Add `left` @ `right` to `total`, which may be the more precise, in place."""
    if total.dtype == left.dtype:
        total.baddbmm_(left, right)
    else:
        total.add_(left @ right)


def inverse_lengths(
    vectors: Float[Tensor, "rows positions dim"],
) -> Float[Tensor, "rows positions"]:
    """1 over the length of each vector, in at least float32; 0 for a zero vector."""
    length = torch.linalg.vector_norm(at_least_float32(vectors), dim=-1)
    # The slope at 0 is infinite: it must see another number there, for the gradient too.
    return torch.where(length > 0, 1 / torch.where(length > 0, length, 1.0), 0.0)


def masked_softmax(
    logits: Float[Tensor, "*shape"], mask: Bool[Tensor, ...] | None, dim: int
) -> Float[Tensor, "*shape"]:
    """Softmax over `dim` of what the mask, broadcast, calls real; the rest gets 0.

    Where nothing is real the result is finite and means nothing.
    """
    if mask is not None:
        logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    return logits.softmax(dim)
