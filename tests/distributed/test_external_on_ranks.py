"""The external loss of two gloo ranks with words of different lengths against one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed

from distributed_pretrain.alignment.gloria import gloria_similarity
from distributed_pretrain.losses.contrastive import symmetric_cross_entropy
from distributed_pretrain.losses.external import external_loss, gather_tokens
from distributed_pretrain.ranks import own_rows, world_size
from tests.distributed.ranks import start_ranks

# One worker with the other losses' ranks, which come from one fork server.
pytestmark = pytest.mark.xdist_group("baseline_gather")

# Rank 0 has three real samples, rank 1 two; its words are padded to another length.
SAMPLE_MASK = torch.tensor([True, True, True, False, True, True])
WORD_COUNTS = torch.tensor([2, 4, 1, 3, 2, 1])


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    regions = torch.randn(6, 5, 4, generator=generator, dtype=torch.float64)
    words = torch.randn(6, 4, 4, generator=generator, dtype=torch.float64)
    return regions, words, torch.arange(4) < WORD_COUNTS[:, None]


def loss_of_this_rank(folder: Path) -> None:
    own = own_rows(3) if world_size() > 1 else slice(0, 6)
    all_regions, all_words, all_mask = inputs()
    longest = int(WORD_COUNTS[own].max())
    regions = all_regions[own].clone().requires_grad_()
    words = all_words[own, :longest].clone().requires_grad_()
    mask = SAMPLE_MASK[own]
    word_mask = all_mask[own, :longest] & mask[:, None]
    words_of_all, mask_of_all = gather_tokens(words), gather_tokens(word_mask)
    similarity = gloria_similarity(regions, words_of_all, mask_of_all)
    loss = external_loss(similarity, temperature=0.1, sample_mask=mask)
    loss.backward()
    assert regions.grad is not None
    assert words.grad is not None
    padded = torch.nn.functional.pad(words.grad, (0, 0, 0, 4 - longest))
    torch.save((loss.detach(), regions.grad, padded), folder / f"{own.start}.pt")


def loss_within_this_rank(folder: Path) -> None:
    """All real samples but one on rank 0: its loss is nearly all of the mean."""
    rows = slice(0, 4) if distributed.get_rank() == 0 else slice(4, 6)
    mask = torch.tensor([True, True, True, True, True, False])[rows]
    square = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))[rows, rows]
    loss = external_loss(square, temperature=0.1, sample_mask=mask, gather=False)
    torch.save((loss, square, mask), folder / f"within{rows.start}.pt")


def run_rank(folder: Path) -> None:
    distributed.init_process_group("gloo")
    loss_of_this_rank(folder)
    loss_within_this_rank(folder)
    distributed.barrier()
    distributed.destroy_process_group()


def test_the_mean_over_ranks_and_its_gradient_are_those_of_one_process(tmp_path: Path) -> None:
    loss_of_this_rank(tmp_path)
    expected = torch.load(tmp_path / "0.pt")
    start_ranks(run_rank, tmp_path, world_size=2, folder=tmp_path).complete()
    ranks = [torch.load(tmp_path / f"{start}.pt") for start in (0, 3)]
    torch.testing.assert_close((ranks[0][0] + ranks[1][0]) / 2, expected[0])
    for part in (1, 2):
        # Each rank's gradient is that of the sum of the ranks' losses.
        torch.testing.assert_close(torch.cat([rank[part] for rank in ranks]) / 2, expected[part])
    within = [torch.load(tmp_path / f"within{start}.pt") for start in (0, 4)]
    of_ranks = [
        symmetric_cross_entropy(square, temperature=0.1, sample_mask=mask)
        for _, square, mask in within
    ]
    torch.testing.assert_close(
        (within[0][0] + within[1][0]) / 2, (4 * of_ranks[0] + 1 * of_ranks[1]) / 5
    )
