"""Each choice of norm on two gloo ranks against one process with the whole batch, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias, get_args

import pytest
import torch
from torch import Tensor, distributed, nn

from distributed_pretrain.models.heads import Projection
from distributed_pretrain.models.image_encoder import make_image_encoder
from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.models.norms.maps import SyncBatchNorm2d
from distributed_pretrain.models.norms.rows import MaskedBatchNorm
from distributed_pretrain.ranks import share_statistics_among, sum_over_ranks
from tests.distributed.ranks import start_ranks

# One worker: its fork server imports the product once.
pytestmark = pytest.mark.xdist_group("ranks")

Results: TypeAlias = dict[str, Tensor]

RANKS = 2
BATCH = 6
NORMS: tuple[Norm, ...] = get_args(Norm)
PARTS = ("trunk", "head")
# How many samples rank 0 holds, and which of all are real.
SPLITS = {
    "equal": (3, [True] * 6),
    "unequal": (4, [True, True, False, True, True, True]),
    "none on rank 1": (4, [True, True, True, True, False, False]),
}


def part_and_inputs(part: str, norm: Norm, real: Tensor) -> tuple[nn.Module, Tensor, Tensor]:
    """A narrow ResNet-18, images and their mask, or a head and unequal numbers of sentences."""
    torch.manual_seed(0)
    model: nn.Module
    if part == "trunk":
        model = make_image_encoder("resnet18", width=0.125, norm=norm)
        values, mask = torch.randn(BATCH, 1, 64, 64), real
    else:
        model = Projection(7, hidden_dim=32, output_dim=5, norm=norm)
        # Some channels lie far from zero, where a variance easily loses its digits.
        nn.init.constant_(model.expand.bias[:4], 30.0)
        values = torch.randn(BATCH, 3, 7)
        counts = torch.tensor([[3], [1], [2], [3], [2], [1]])
        mask = (torch.arange(3) < counts) & real[:, None]
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 and "expand" not in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model.double(), values.double(), mask


def outputs_gradients_and_statistics(
    part: str, norm: Norm, split: str, rank: int | None = None
) -> tuple[Results, Results]:
    """(outputs and input gradients by row, parameter gradients and statistics).

    Of the samples of `rank`, or of all. Parameter gradients are summed over the ranks.
    """
    first_count, real = SPLITS[split]
    rows = {0: slice(first_count), 1: slice(first_count, None), None: slice(None)}[rank]
    model, values, mask = part_and_inputs(part, norm, torch.tensor(real))
    values, mask = values[rows].requires_grad_(), mask[rows]
    outputs = model(values, mask)
    (outputs[mask].square() + outputs[mask].sin()).sum().backward()
    assert values.grad is not None
    by_row = {"output": torch.zeros_like(outputs), "input gradient": values.grad}
    by_row["output"][mask] = outputs[mask].detach()
    shared = dict(model.named_buffers())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        shared[f"gradient of {name}"] = sum_over_ranks(parameter.grad)
    return by_row, shared


def run_rank(folder: Path) -> None:
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    results = {
        (part, norm, split): outputs_gradients_and_statistics(part, norm, split, rank)
        for part in PARTS
        for norm in NORMS
        # A batch norm of its own without any row would be a degenerate case of no interest.
        for split in (SPLITS if norm != "local" else ("equal",))
    }
    half = torch.randn(2, 3, 4, 4).bfloat16().to(memory_format=torch.channels_last)
    layer = SyncBatchNorm2d(3)
    with torch.autocast("cpu", torch.bfloat16):
        half_output = layer(half)
    extra = {"half": half_output.detach(), "running mean": layer.running_mean}
    if rank == 0:
        # Alone: it would wait for the other rank if it asked it for anything.
        extra["evaluated"] = layer.eval()(torch.ones(1, 3, 2, 2)).detach()
        reference = nn.BatchNorm2d(3).eval()
        reference.load_state_dict(layer.state_dict())
        extra["reference"] = reference(torch.ones(1, 3, 2, 2)).detach()
    torch.save((results, extra), folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


RankResults: TypeAlias = tuple[dict[tuple[str, str, str], tuple[Results, Results]], Results]


def maps_of(ranks: slice) -> Tensor:
    """Three maps of each of four ranks."""
    torch.manual_seed(0)
    maps = torch.randn(4, 3, 2, 2, 2, dtype=torch.float64)[ranks]
    return (maps * (1 + torch.arange(4)[ranks].view(-1, 1, 1, 1, 1))).flatten(0, 1)


def normed(maps: Tensor) -> Results:
    """Maps and rows normalised, and the maps' gradient."""
    maps = maps.clone().requires_grad_()
    layer, rows = SyncBatchNorm2d(2).double(), MaskedBatchNorm(2).double()
    found = {"maps": layer(maps), "rows": rows(maps.permute(0, 2, 3, 1))}
    torch.stack([each.sin().sum() for each in found.values()]).sum().backward()
    assert maps.grad is not None
    statistics = {"mean": layer.running_mean, "variance": rows.running_var}
    return {n: each.detach() for n, each in (found | statistics | {"g": maps.grad}).items()}


def run_rank_of_pairs(folder: Path) -> None:
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    results = []
    for among in (2, 1, 4, None):
        share_statistics_among(among)
        results.append(normed(maps_of(slice(rank, rank + 1))))
    torch.save(results, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


def test_norms_share_statistics_among_as_many_ranks_as_they_are_told(tmp_path: Path) -> None:
    start_ranks(run_rank_of_pairs, tmp_path, world_size=4, folder=tmp_path).complete()
    found = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(4)]
    for number, among in enumerate((2, 1, 4, 4)):
        for first in range(0, 4, among):
            expected = normed(maps_of(slice(first, first + among)))
            ours = [found[rank][number] for rank in range(first, first + among)]
            for name, wanted in expected.items():
                whole = name in ("mean", "variance")
                got = ours[-1][name] if whole else torch.cat([each[name] for each in ours])
                torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10, msg=name)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[RankResults]:
    folder = tmp_path_factory.mktemp("ranks")
    start_ranks(run_rank, folder, world_size=RANKS, folder=folder).complete()
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("norm", ["sync", "frozen", "group"])
@pytest.mark.parametrize("part", PARTS)
def test_two_ranks_have_the_outputs_gradients_and_statistics_of_one_process(
    ranks: list[RankResults], part: str, norm: Norm, split: str
) -> None:
    expected_by_row, expected_shared = outputs_gradients_and_statistics(part, norm, split)
    results = [each[(part, norm, split)] for each, _ in ranks]
    for name, expected in expected_by_row.items():
        ours = torch.cat([by_row[name] for by_row, _ in results])
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10, msg=name)
    for _, shared in results:
        assert shared.keys() == expected_shared.keys()
        for name, expected in expected_shared.items():
            torch.testing.assert_close(shared[name], expected, rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize(
    ("part", "name"), [("trunk", "backbone.conv1.weight"), ("head", "expand.weight")]
)
def test_statistics_of_the_own_rank_give_another_gradient(
    ranks: list[RankResults], part: str, name: str
) -> None:
    _, expected = outputs_gradients_and_statistics(part, "local", "equal")
    _, ours = ranks[0][0][(part, "local", "equal")]
    name = f"gradient of {name}"
    assert (ours[name] - expected[name]).norm() > 0.05 * expected[name].norm()


def test_synchronised_maps_keep_dtype_and_memory_format(ranks: list[RankResults]) -> None:
    for _, extra in ranks:
        assert extra["half"].dtype == torch.bfloat16
        assert extra["half"].is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(extra["running mean"], ranks[0][1]["running mean"])
    maps = torch.cat([extra["half"] for _, extra in ranks]).float()
    assert maps.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0] * 3, abs=0.01)
    assert maps.var(dim=(0, 2, 3)).tolist() == pytest.approx([1] * 3, rel=0.05)


def test_evaluation_asks_nothing_of_other_ranks(ranks: list[RankResults]) -> None:
    assert torch.equal(ranks[0][1]["evaluated"], ranks[0][1]["reference"])
