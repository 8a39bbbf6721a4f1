"""Logits between samples are whole float32 products on a GPU, whatever a run allows elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.losses.sentence_region_contrast import pooled_fit

ROWS, COLUMNS, DIM = 6, 5, 8


class _Logits(TorchDispatchMode):
    """Whether TF32 is allowed at each product over `DIM`: those make logits."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed: list[bool] = []

    def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "mm" in function.__name__ and args[-1].shape[-2] == DIM:
            self.allowed.append(torch.backends.cuda.matmul.allow_tf32)
        return function(*args, **(kwargs or {}))


@contextmanager
def tf32_allowed() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def globally(rows: Tensor, chunk_size: int | None) -> Tensor:
    return global_contrastive_loss(rows, rows.flip(0), chunk_size=chunk_size)


def by_regions(rows: Tensor, chunk_size: int | None) -> Tensor:
    return pooled_fit(rows, rows.flip(0).view(2, -1, DIM), chunk_size=chunk_size).sum()


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("loss", [globally, by_regions])
def test_no_logit_is_made_in_tf32(
    loss: Callable[[Tensor, int | None], Tensor], chunk_size: int | None
) -> None:
    rows = torch.randn(ROWS, DIM, requires_grad=True)
    with tf32_allowed(), _Logits() as logits:
        loss(rows, chunk_size).backward()
        assert torch.backends.cuda.matmul.allow_tf32
    assert len(logits.allowed) == (1 if chunk_size is None else 2 * ROWS // chunk_size)
    assert not any(logits.allowed)
