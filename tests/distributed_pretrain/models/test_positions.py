from __future__ import annotations

import math

import pytest
import torch

from data_shards.errors import InputError
from distributed_pretrain.models.positions import GridPositions, grid_positions


def test_positions_are_the_sines_and_cosines_of_column_and_row() -> None:
    rows, columns, dim = 2, 3, 12
    found = grid_positions(rows, columns, dim)
    for y in range(rows):
        for x in range(columns):
            frequencies = [10_000 ** (-k / 2) for k in range(3)]
            expected = [
                wave(place * frequency)
                for place in (x, y)
                for wave in (math.sin, math.cos)
                for frequency in frequencies
            ]
            assert found[y, x].tolist() == pytest.approx(expected, abs=1e-12)


def test_the_papers_grid_has_waves_from_one_cell_to_ten_thousand() -> None:
    positions = grid_positions(19, 19, 768)
    assert positions.shape == (19, 19, 768)
    torch.testing.assert_close(positions[0, 1, 0], torch.tensor(1.0).double().sin())
    torch.testing.assert_close(positions[0, 1, 191], torch.tensor(1e-4).double().sin())


def test_every_position_is_as_long_as_every_other_and_none_is_met_twice() -> None:
    positions = grid_positions(19, 19, 768).flatten(0, 1)
    torch.testing.assert_close(
        positions.norm(dim=1), torch.full((361,), math.sqrt(768 / 2)).double()
    )
    closest = (torch.cdist(positions, positions) + 100 * torch.eye(361)).min()
    assert closest > 1


def test_positions_are_added_to_every_image_alike_and_learn_nothing() -> None:
    layer = GridPositions(8)
    regions = torch.randn(3, 4, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(regions) - regions, grid_positions(4, 5, 8).expand(3, 4, 5, 8))
    assert not list(layer.parameters())
    assert not layer.state_dict()
    assert layer(regions.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("dim", [4, 10])
def test_dimensions_that_do_not_hold_them_are_refused(dim: int) -> None:
    with pytest.raises(InputError, match=f"cannot fill {dim} dimensions"):
        GridPositions(dim)
