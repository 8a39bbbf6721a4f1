"""Every hand-written backward on a GPU that is not there: gradients fit, nobody waits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

from distributed_pretrain.alignment.gloria import gloria_similarity
from distributed_pretrain.alignment.limitr import LimitrSimilarity
from distributed_pretrain.alignment.variants import Variant
from distributed_pretrain.benchmark.fake_backward import in_order
from distributed_pretrain.benchmark.fake_cuda import HostWaits, fake_cuda, moved
from distributed_pretrain.losses.blockwise import row_log_normalisers
from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.losses.sentence_region_contrast import sentence_region_contrast
from distributed_pretrain.models.norms.groups import in_groups
from distributed_pretrain.models.norms.synchronised import sync_batch_norm
from distributed_pretrain.ranks import gather_rows
from tests.paths import ROOT

B, R, W, D = 4, 9, 7, 16
WORDS = (7, 5, 2, 1)
DTYPES = (torch.float32, torch.bfloat16)
Draw = Callable[..., Tensor]
# A scalar of leaves that `Draw` makes: its shape is given, its type that of encoders' outputs.
Case = Callable[[Draw], Tensor]


def _gloria(draw: Draw) -> Tensor:
    mask = torch.ones(B, W, dtype=torch.bool, device="cuda")
    similarity: Tensor = gloria_similarity(draw(B, R, D), draw(B, W, D), mask, word_counts=WORDS)
    return similarity.sum()


def _limitr(draw: Draw, variant: Variant) -> Tensor:
    with torch.device("cuda"):
        similarity = LimitrSimilarity(D, variant).train()
        mask = torch.ones(B, W, dtype=torch.bool)
    sides = similarity(draw(B, R, D), draw(B, W, D), mask, word_counts=WORDS)
    return torch.stack(sides).sum()


def _global(draw: Draw, chunk_size: int | None) -> Tensor:
    return global_contrastive_loss(draw(B, D), draw(B, D), chunk_size=chunk_size)


def _rows(draw: Draw) -> Tensor:
    own = torch.arange(B, device="cuda")
    rows, columns = draw(B, D).float(), draw(2 * B, D).float()
    return row_log_normalisers(rows, columns, own_column=own).sum()


def _regions(draw: Draw, chunk_size: int | None) -> Tensor:
    return sentence_region_contrast(
        draw(B, W, D),
        draw(B, R, D),
        sentence_mask=torch.ones(B, W, dtype=torch.bool, device="cuda"),
        sentence_ids=torch.zeros(B, W, dtype=torch.long, device="cuda"),
        most_sentences=W,
        chunk_size=chunk_size,
    )


def _norm(draw: Draw, *, across_ranks: bool) -> Tensor:
    layer = nn.BatchNorm2d(D).train()
    moved(layer)
    with in_groups(2):
        maps: Tensor = sync_batch_norm(layer, draw(B, D, 3, 3), across_ranks=across_ranks)
    return maps.sum()


CASES: dict[str, tuple[str, Case]] = {
    "gloria": ("_PairSimilarity", _gloria),
    "limitr, paper": ("_PairLogits", lambda draw: _limitr(draw, "paper")),
    "limitr, authors": ("_PairLogits", lambda draw: _limitr(draw, "authors")),
    "global": ("_LogNormalisers", lambda draw: _global(draw, None)),
    "global in chunks": ("_LogNormalisers", lambda draw: _global(draw, 3)),
    "rows alone": ("_LogNormalisers", _rows),
    "regions": ("_PooledFit", lambda draw: _regions(draw, None)),
    "regions in chunks": ("_PooledFit", lambda draw: _regions(draw, 3)),
    "norm": ("_SyncBatchNorm", lambda draw: _norm(draw, across_ranks=True)),
    "norm of groups": ("_GroupedBatchNorm", lambda draw: _norm(draw, across_ranks=False)),
    "gather": ("_GatherRows", lambda draw: gather_rows(draw(B, D)).float().sum()),
}


def test_no_hand_written_backward_is_left_out() -> None:
    written = {
        name
        for file in (ROOT / "distributed_pretrain").rglob("*.py")
        for name in re.findall(r"class (\w+)\(torch\.autograd\.Function\)", file.read_text())
    }
    assert written == {function for function, _ in CASES.values()}


def walk(name: str, dtype: torch.dtype) -> None:
    function, case = CASES[name]
    leaves: list[Tensor] = []

    def draw(*shape: int) -> Tensor:
        leaves.append(torch.empty(shape, dtype=dtype, device="cuda", requires_grad=True))
        return leaves[-1]

    with fake_cuda(), HostWaits() as seen:
        with torch.autocast("cuda", torch.bfloat16, enabled=dtype is torch.bfloat16):
            loss = case(draw)
        nodes = {type(node).__name__ for node in in_order([loss.grad_fn])}
        loss.backward()
        assert f"{function}Backward" in nodes
        assert facts(each.grad for each in leaves if each.grad is not None) == facts(leaves)
    assert not seen.waits


def facts(tensors: Iterable[Tensor]) -> list[tuple[torch.Size, torch.dtype, str]]:
    return [(each.shape, each.dtype, each.device.type) for each in tensors]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [name for name in CASES if name != "gather"])
def test_a_backward_gives_fitting_gradients_and_waits_for_nothing(
    name: str, dtype: torch.dtype
) -> None:
    walk(name, dtype)


@pytest.mark.usefixtures("two_ranks")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_so_does_one_of_several_ranks(name: str, dtype: torch.dtype) -> None:
    walk(name, dtype)
