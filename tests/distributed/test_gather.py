"""Two gloo ranks against one process with the whole batch, in float64."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn

from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.losses.local import local_image_loss, local_report_loss
from distributed_pretrain.losses.sentence_region_contrast import sentence_region_contrast
from distributed_pretrain.models.heads import Projection
from distributed_pretrain.ranks import gather_rows, sum_over_ranks, words_of_all, world_size
from tests.distributed.ranks import start_ranks

# One worker: its fork server imports the product once.
pytestmark = pytest.mark.xdist_group("ranks")

RANKS = 2
BATCH = 8
# How many samples of the whole batch are real: all, more on one rank, none on the second.
REAL = {
    "all": [True] * 8,
    "unequal": [True, True, True, True, False, True, False, False],
    "none on rank 1": [True, False, True, True, False, False, False, False],
}
CASES = [("all", None), ("unequal", None), ("unequal", 3), ("none on rank 1", None)]


class Heads(nn.Module):
    """Two towers with synchronised norms, and a learnt temperature."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image = Projection(6, hidden_dim=10, output_dim=5)
        self.report = Projection(7, hidden_dim=10, output_dim=5)
        self.temperature = nn.Parameter(torch.tensor([0.2]))
        self.double()

    def forward(
        self, rows: slice, sample_mask: Tensor, *, gather: bool, chunk_size: int | None
    ) -> Tensor:
        """The loss of the samples in `rows`: global, local image and report, sentence to region."""
        generator = torch.Generator().manual_seed(1)
        regions = torch.randn(BATCH, 4, 6, generator=generator, dtype=torch.float64)[rows]
        sentences = torch.randn(BATCH, 3, 7, generator=generator, dtype=torch.float64)[rows]
        counts = torch.tensor([3, 1, 2, 3, 2, 2, 1, 2])[rows, None]
        mask = sample_mask[rows]
        longest = int(counts.max())  # 3, 3 on rank 0, 2 on rank 1
        sentences = sentences[:, :longest]
        sentence_mask = (torch.arange(longest) < counts) & mask[:, None]
        # Some are said in several reports, of one rank and of both.
        ids = (torch.arange(BATCH)[rows, None] * torch.tensor([1, 3, 5])[:longest]) % 7
        local_image = self.image(regions, mask[:, None].expand(-1, 4))
        local_report = self.report(sentences, sentence_mask)
        return (
            global_contrastive_loss(
                local_image.mean(dim=1),
                local_report[:, 0],
                temperature=self.temperature,
                sample_mask=mask,
                gather=gather,
                chunk_size=chunk_size,
            )
            + local_image_loss(
                local_image,
                local_image.roll(1, dims=2),
                torch.full((len(mask), 4), 0.25, dtype=torch.float64),
                grid=(2, 2),
                temperature=self.temperature,
                sample_mask=mask,
            )
            + local_report_loss(
                local_report,
                local_report.roll(1, dims=2),
                sentence_mask,
                sentence_mask / counts,
                temperature=self.temperature,
                sample_mask=mask,
            )
            + sentence_region_contrast(
                local_report,
                local_image,
                sentence_mask=sentence_mask,
                sentence_ids=ids,
                most_sentences=4,
                temperature=self.temperature,
                sample_mask=mask,
                gather=gather,
                chunk_size=chunk_size,
            )
        )


def loss_gradients_and_statistics(
    rows: slice, real: str, *, gather: bool = True, chunk_size: int | None = None
) -> dict[str, Tensor]:
    """Averaged over the ranks, as DDP averages gradients."""
    model = Heads()
    mask = torch.tensor(REAL[real])
    loss = model(rows, mask, gather=gather, chunk_size=chunk_size)
    loss.backward()
    results = {"loss": loss.detach()} | dict(model.named_buffers())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        results[f"gradient of {name}"] = parameter.grad
    return {name: sum_over_ranks(each.double()) / world_size() for name, each in results.items()}


def run_rank(folder: Path) -> None:
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    rows = slice(rank * BATCH // RANKS, (rank + 1) * BATCH // RANKS)
    results: dict[str, dict[str, Tensor]] = {
        f"{real}, {chunk_size}": loss_gradients_and_statistics(rows, real, chunk_size=chunk_size)
        for real, chunk_size in CASES
    }
    results["own negatives"] = loss_gradients_and_statistics(rows, "all", gather=False)
    own = torch.full((2, 3), float(rank), requires_grad=True)
    gathered = gather_rows(own)
    (gathered * torch.arange(1.0, 5.0)[:, None] * (rank + 1)).sum().backward()
    assert own.grad is not None
    results["rows"] = {
        "gathered": gathered.detach(),
        "mask": gather_rows(torch.tensor([True, rank == 1])),
        f"gradient on rank {rank}": own.grad,
    }
    torch.save(results, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("ranks")
    start_ranks(run_rank, folder, world_size=RANKS, folder=folder).complete()
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize(("real", "chunk_size"), CASES)
def test_two_ranks_have_the_loss_gradients_and_statistics_of_one_process(
    ranks: list[dict[str, dict[str, Tensor]]], real: str, chunk_size: int | None
) -> None:
    expected = loss_gradients_and_statistics(slice(None), real)
    for results in ranks:
        for name, ours in results[f"{real}, {chunk_size}"].items():
            torch.testing.assert_close(ours, expected[name], rtol=1e-10, atol=1e-12, msg=name)


def test_negatives_of_the_own_rank_alone_are_another_loss(
    ranks: list[dict[str, dict[str, Tensor]]],
) -> None:
    expected = loss_gradients_and_statistics(slice(None), "all")
    ours = ranks[0]["own negatives"]
    assert ours["loss"] < expected["loss"]
    name = "gradient of image.expand.weight"
    assert (ours[name] - expected[name]).norm() > 0.01 * expected[name].norm()


def test_gathered_rows_are_in_the_order_of_the_ranks(
    ranks: list[dict[str, dict[str, Tensor]]],
) -> None:
    for results in ranks:
        assert results["rows"]["gathered"][:, 0].tolist() == [0, 0, 1, 1]
        assert results["rows"]["mask"].tolist() == [True, False, True, True]


def test_the_gradient_of_a_gather_is_the_sum_over_the_ranks(
    ranks: list[dict[str, dict[str, Tensor]]],
) -> None:
    # Rank r weighs row i by (r + 1)(i + 1): 3 (i + 1) over both ranks.
    assert ranks[0]["rows"]["gradient on rank 0"][:, 0].tolist() == [3, 6]
    assert ranks[1]["rows"]["gradient on rank 1"][:, 0].tolist() == [9, 12]


def test_in_one_process_nothing_is_gathered() -> None:
    rows = torch.ones(2, 3)
    assert gather_rows(rows) is rows
    assert sum_over_ranks(rows) is rows


def test_ranks_hear_each_others_words_before_any_collective(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    hear = partial(words_of_all, ranks=3, timeout_seconds=60)
    with ThreadPoolExecutor(3) as pool:
        heard = [pool.submit(hear, f"gpu {rank}", rank=rank) for rank in range(3)]
    assert [each.result() for each in heard] == [["gpu 0", "gpu 1", "gpu 2"]] * 3
