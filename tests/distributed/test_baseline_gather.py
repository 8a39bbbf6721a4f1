"""The baselines' losses on two gloo ranks against one process with the whole batch, in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from distributed_pretrain.losses.multi_label import multi_label_loss
from distributed_pretrain.losses.pixel_propagation import (
    pixel_propagation_by_image,
)
from distributed_pretrain.losses.prototypes import prototype_loss, sinkhorn
from distributed_pretrain.losses.self_supervised import byol_loss, nt_xent_loss
from distributed_pretrain.losses.token_alignment import token_alignment_loss
from distributed_pretrain.models.ema import EmaTeacher
from distributed_pretrain.models.heads import Projection
from distributed_pretrain.ranks import mean_over_samples, sum_over_ranks, world_size
from tests.distributed.ranks import start_ranks

# One worker: the ranks are started once for the whole file.
pytestmark = pytest.mark.xdist_group("baseline_gather")

RANKS = 2
BATCH, REGIONS, DIM = 8, 3, 5
REAL = {
    "all": torch.ones(BATCH, dtype=torch.bool),
    "unequal": torch.tensor([True, True, True, False, False, True, False, False]),
    "none on rank 1": torch.tensor([True, False, True, True, False, False, False, False]),
}


def drawn(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class Head(nn.Module):
    """A tower without statistics, and prototypes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project = Projection(DIM, hidden_dim=6, output_dim=4, norm=None)
        self.prototypes = nn.Parameter(torch.randn(7, 4))
        self.double()


def simclr(head: Head, rows: slice, mask: Tensor, *, chunk_size: int | None = None) -> Tensor:
    first, second = drawn(2, BATCH, DIM, seed=1)[:, rows]
    return nt_xent_loss(
        head.project(first), head.project(second), sample_mask=mask, chunk_size=chunk_size
    )


def simclr_in_chunks(head: Head, rows: slice, mask: Tensor) -> Tensor:
    return simclr(head, rows, mask, chunk_size=3)


def byol(head: Head, rows: slice, mask: Tensor) -> Tensor:
    first, second = drawn(2, BATCH, DIM, seed=2)[:, rows]
    targets = drawn(2, BATCH, 4, seed=3)[:, rows]
    return byol_loss(
        head.project(first), head.project(second), targets[0], targets[1], sample_mask=mask
    )


def pixpro(head: Head, rows: slice, mask: Tensor) -> Tensor:
    first, second = drawn(2, BATCH, REGIONS, DIM, seed=4)[:, rows]
    targets = drawn(2, BATCH, REGIONS, 4, seed=5)[:, rows]
    # Images 1, 5 and 6 have no pair.
    matches = (drawn(BATCH, REGIONS, REGIONS, seed=6) > 0)[rows]
    matches &= torch.tensor([True, False, True, True, True, False, False, True])[rows, None, None]
    by_image = pixel_propagation_by_image(
        head.project(first),
        head.project(second),
        targets[0],
        targets[1],
        matches,
        sample_mask=mask,
    )
    return mean_over_samples(by_image, matches.flatten(1).any(dim=1) & mask)


def tokens(head: Head, rows: slice, mask: Tensor) -> Tensor:
    regions, words = drawn(2, BATCH, REGIONS, DIM, seed=7)[:, rows]
    counts = torch.tensor([3, 1, 2, 3, 2, 2, 1, 3])[rows, None]
    word_mask = torch.arange(REGIONS) < counts
    return token_alignment_loss(
        head.project(regions),
        head.project(words),
        word_mask,
        region_weights=torch.full(regions.shape[:2], 1 / REGIONS, dtype=torch.float64),
        word_weights=word_mask / counts.double(),
        sample_mask=mask,
    )


def prototypes(head: Head, rows: slice, mask: Tensor) -> Tensor:
    image, report = drawn(2, BATCH, DIM, seed=8)[:, rows]
    return prototype_loss(
        head.project(image), head.project(report), head.prototypes, sample_mask=mask
    )


def labels(head: Head, rows: slice, mask: Tensor) -> Tensor:
    known = drawn(BATCH, 4, seed=9)
    targets = torch.where(known > 0.3, torch.nan, (known > -0.3).double())[rows]
    return multi_label_loss(
        head.project(drawn(BATCH, DIM, seed=10)[rows]), targets, sample_mask=mask
    )


LOSSES: dict[str, Callable[[Head, slice, Tensor], Tensor]] = {
    "simclr": simclr,
    "simclr in chunks": simclr_in_chunks,
    "byol": byol,
    "pixpro": pixpro,
    "tokens": tokens,
    "prototypes": prototypes,
    "labels": labels,
}
CASES = [(loss, real) for loss in LOSSES for real in REAL]


def loss_and_gradients(loss: str, real: str, rows: slice) -> dict[str, Tensor]:
    """Averaged over the ranks, as DDP averages gradients."""
    head = Head()
    value = LOSSES[loss](head, rows, REAL[real][rows])
    value.backward()
    results = {"loss": value.detach()}
    for name, parameter in head.named_parameters():
        results[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return {name: sum_over_ranks(each) / world_size() for name, each in results.items()}


def teacher_after_training(rows: slice) -> dict[str, Tensor]:
    """State of a teacher whose student was trained for three steps, in DDP on several ranks."""
    torch.manual_seed(0)
    student = Projection(DIM, hidden_dim=6, output_dim=4).double()
    teacher = EmaTeacher(student)
    branch = nn.ModuleDict({"student": student, "teacher": teacher})
    model = _Byol(branch)
    wrapped = (
        model if world_size() == 1 else DistributedDataParallel(model, broadcast_buffers=False)
    )
    optimizer = torch.optim.SGD(student.parameters(), lr=0.5)
    for step in range(3):
        optimizer.zero_grad()
        wrapped(drawn(2, BATCH, DIM, seed=step)[:, rows]).backward()
        optimizer.step()
        teacher.follow(student, 0.7)
    assert not any(each.grad is not None for each in teacher.parameters())
    return dict(teacher.state_dict())


class _Byol(nn.Module):
    def __init__(self, branch: nn.ModuleDict) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, views: Tensor) -> Tensor:
        student, teacher = self.branch["student"], self.branch["teacher"]
        return byol_loss(student(views[0]), student(views[1]), teacher(views[0]), teacher(views[1]))


def run_rank(folder: Path) -> None:
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    rows = slice(rank * BATCH // RANKS, (rank + 1) * BATCH // RANKS)
    results: dict[str, dict[str, Tensor]] = {
        f"{loss}, {real}": loss_and_gradients(loss, real, rows) for loss, real in CASES
    }
    results["teacher"] = teacher_after_training(rows)
    similarity = drawn(BATCH, 7, seed=11).tanh()
    results["sinkhorn"] = {"assignments": sinkhorn(similarity[rows])}
    torch.save(results, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("ranks")
    start_ranks(run_rank, folder, world_size=RANKS, folder=folder).complete()
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize(("loss", "real"), CASES)
def test_two_ranks_have_the_loss_and_gradients_of_one_process(
    ranks: list[dict[str, dict[str, Tensor]]], loss: str, real: str
) -> None:
    expected = loss_and_gradients(loss, real, slice(None))
    assert expected["loss"] != 0
    for results in ranks:
        for name, ours in results[f"{loss}, {real}"].items():
            torch.testing.assert_close(ours, expected[name], rtol=1e-9, atol=1e-12, msg=name)


def test_assignments_are_those_of_the_whole_batch(
    ranks: list[dict[str, dict[str, Tensor]]],
) -> None:
    similarity = drawn(BATCH, 7, seed=11).tanh()
    ours = torch.cat([results["sinkhorn"]["assignments"] for results in ranks])
    torch.testing.assert_close(ours, sinkhorn(similarity))
    alone = sinkhorn(similarity[: BATCH // RANKS])
    assert (alone - ours[: BATCH // RANKS]).abs().max() > 0.01


def test_teachers_are_the_same_on_all_ranks_and_that_of_one_process(
    ranks: list[dict[str, dict[str, Tensor]]],
) -> None:
    expected = teacher_after_training(slice(None))
    for name, value in ranks[0]["teacher"].items():
        assert torch.equal(ranks[1]["teacher"][name], value), name
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-12, msg=name)
