"""Log-normalisers of a similarity matrix that is never held whole, or held once and no more.

The matrix is walked in blocks of rows. A block holds all columns, so the sums of its rows are
complete; the sums down the columns are kept as a running maximum and a running sum of
exponentials. Backward walks the same blocks with the same two buffers and adds to gradients that
were allocated once: automatic differentiation would keep the matrix and several copies of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from distributed_pretrain.losses.precision import whole_float32_products

# B rows, A columns, C rows of one block, D dim.

# Numbers in a block of a matrix that is kept: anything from 2**20 to 2**24 was as quick on a CPU
# (16 MiB in float32 stay in the cache between the passes over them).
KEPT_BLOCK_ELEMENTS = 2**22


def log_normalisers(
    rows: Float[Tensor, "batch dim"],
    columns: Float[Tensor, "all_samples dim"],
    *,
    row_mask: Bool[Tensor, " batch"] | None = None,
    column_mask: Bool[Tensor, " all_samples"] | None = None,
    chunk_size: int | None = None,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " all_samples"]]:
    """log Σ_j e^{<row_i, column_j>} of every row i, and log Σ_i of the same of every column j.

    Masks name the rows and columns that take part (True = real); the figures of the others are
    finite, mean nothing and must be left out of the loss, and their vectors must be finite too.

    `chunk_size` is that of `global_contrastive_loss`. Differentiable once.
    """
    normalisers: tuple[Tensor, Tensor] = _LogNormalisers.apply(
        chunk_size, True, rows, columns, row_mask, column_mask, None
    )
    return normalisers


def row_log_normalisers(
    rows: Float[Tensor, "batch dim"],
    columns: Float[Tensor, "all_samples dim"],
    *,
    column_mask: Bool[Tensor, " all_samples"] | None = None,
    own_column: Int[Tensor, " batch"] | None = None,
    chunk_size: int | None = None,
) -> Float[Tensor, " batch"]:
    """log Σ_j e^{<row_i, column_j>} of every row i, as `log_normalisers` gives them.

    Where the rows are among the columns, `own_column` says which column each row is, and keeps it
    out of the row's sum.
    """
    normalisers: tuple[Tensor, None] = _LogNormalisers.apply(
        chunk_size, False, rows, columns, None, column_mask, own_column
    )
    return normalisers[0]


class _Matrix(NamedTuple):
    """The similarities of rows (B D) with columns (A D), and what is left out of them."""

    rows: Tensor
    columns: Tensor
    row_mask: Tensor | None
    column_mask: Tensor | None
    own_column: Tensor | None

    def buffer(self, most_rows: int) -> Tensor:
        return self.rows.new_empty(min(most_rows, len(self.rows)), len(self.columns))

    def write_logits(self, block: slice, out_CA: Tensor) -> None:
        """<row, column> of a block; what a mask takes out is the lowest finite number."""
        with whole_float32_products():
            torch.mm(self.rows[block], self.columns.T, out=out_CA)
        lowest = torch.finfo(out_CA.dtype).min
        if self.column_mask is not None:
            out_CA.masked_fill_(~self.column_mask, lowest)
        if self.row_mask is not None:
            out_CA.masked_fill_(~self.row_mask[block, None], lowest)
        if self.own_column is not None:
            out_CA.scatter_(1, self.own_column[block, None], lowest)


class _LogNormalisers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, chunk_size: int | None, both: bool, *tensors: Any
    ) -> tuple[Tensor, Tensor | None]:
        matrix = _Matrix(*tensors)
        rows_BD, batch, all_samples = matrix.rows, len(matrix.rows), len(matrix.columns)
        keep = chunk_size is None
        ctx.block_rows = chunk_size or max(1, KEPT_BLOCK_ELEMENTS // max(1, all_samples))
        logits = matrix.buffer(batch if keep else ctx.block_rows)
        buffer_CA = matrix.buffer(ctx.block_rows)
        row_normaliser_B = rows_BD.new_empty(batch)
        maximum_A = rows_BD.new_full((all_samples,), torch.finfo(rows_BD.dtype).min)
        sum_A = rows_BD.new_zeros(all_samples)
        for block in blocks(len(matrix.rows), ctx.block_rows):
            size = block.stop - block.start
            logits_CA = logits[block] if keep else logits[:size]
            matrix.write_logits(block, logits_CA)
            exponentials_CA = buffer_CA[:size]
            row_maximum_C = logits_CA.amax(dim=1)
            torch.sub(logits_CA, row_maximum_C[:, None], out=exponentials_CA).exp_()
            row_normaliser_B[block] = exponentials_CA.sum(dim=1).log_().add_(row_maximum_C)
            if both:
                larger_A = torch.maximum(maximum_A, logits_CA.amax(dim=0))
                torch.sub(logits_CA, larger_A, out=exponentials_CA).exp_()
                sum_A.mul_((maximum_A - larger_A).exp_()).add_(exponentials_CA.sum(dim=0))
                maximum_A = larger_A
        column_normaliser_A = sum_A.log_().add_(maximum_A) if both else None
        kept = logits if keep else None
        ctx.save_for_backward(*matrix, kept, row_normaliser_B, column_normaliser_A)
        return row_normaliser_B, column_normaliser_A

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, row_gradient_B: Tensor, column_gradient_A: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        *tensors, kept_BA, row_normaliser_B, column_normaliser_A = ctx.saved_tensors
        matrix = _Matrix(*tensors)
        d_rows_BD = torch.empty_like(matrix.rows)
        d_columns_AD = torch.zeros_like(matrix.columns)
        buffer_CA = matrix.buffer(ctx.block_rows)
        d_logits_buffer_CA = torch.empty_like(buffer_CA)
        for block in blocks(len(matrix.rows), ctx.block_rows):
            size = block.stop - block.start
            exponentials_CA, d_logits_CA = buffer_CA[:size], d_logits_buffer_CA[:size]
            if kept_BA is None:
                # The second exponentials overwrite them, once nobody else reads them.
                logits_CA = exponentials_CA
                matrix.write_logits(block, logits_CA)
            else:
                logits_CA = kept_BA[block]
            torch.sub(logits_CA, row_normaliser_B[block, None], out=d_logits_CA).exp_()
            d_logits_CA.mul_(row_gradient_B[block, None])
            if column_gradient_A is not None:
                torch.sub(logits_CA, column_normaliser_A, out=exponentials_CA).exp_()
                d_logits_CA.addcmul_(exponentials_CA, column_gradient_A.expand_as(d_logits_CA))
            torch.mm(d_logits_CA, matrix.columns, out=d_rows_BD[block])
            d_columns_AD.addmm_(d_logits_CA.T, matrix.rows[block])
        return None, None, d_rows_BD, d_columns_AD, None, None, None


def blocks(rows: int, block_rows: int) -> Iterator[slice]:
    """Consecutive slices of `block_rows` rows, the last one of what is left."""
    for start in range(0, rows, block_rows):
        yield slice(start, min(start + block_rows, rows))
