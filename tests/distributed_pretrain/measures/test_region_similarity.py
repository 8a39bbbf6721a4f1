from __future__ import annotations

import itertools
import math

import pytest
import torch

from distributed_pretrain.measures.region_similarity import similarity_by_distance


def _features(images: int, channels: int, rows: int, columns: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(images, channels, rows, columns, dtype=torch.float64)


@pytest.mark.parametrize(("rows", "columns"), [(7, 7), (3, 5)])
def test_every_pair_of_an_image_is_counted_at_its_rounded_distance(rows: int, columns: int) -> None:
    features = _features(2, 4, rows, columns)
    cosines: dict[float, list[float]] = {}
    cells = list(itertools.product(range(rows), range(columns)))
    for image in features:
        for (y, x), (v, u) in itertools.combinations(cells, 2):
            distance = round(math.hypot(y - v, x - u) / math.hypot(rows, columns), 1)
            cosine = torch.cosine_similarity(image[:, y, x], image[:, v, u], dim=0).item()
            cosines.setdefault(distance, []).append(cosine)
    found = similarity_by_distance(features)
    assert [each.distance for each in found] == sorted(cosines)
    for each in found:
        expected = torch.tensor(cosines[each.distance], dtype=torch.float64)
        assert each.pairs == len(expected)
        assert each.mean == pytest.approx(expected.mean().item())
        quartiles = torch.quantile(expected, torch.tensor([0.25, 0.5, 0.75]).double())
        assert each.quartiles == pytest.approx(quartiles.tolist())
        assert each.percentiles[0] == pytest.approx(expected.min().item())
        assert each.percentiles[-1] == pytest.approx(expected.max().item())


def test_the_paper_s_grid_has_distances_up_to_nine_tenths() -> None:
    found = similarity_by_distance(_features(1, 2, 7, 7))
    assert [each.distance for each in found] == [n / 10 for n in range(1, 10)]
    assert sum(each.pairs for each in found) == 49 * 48 // 2


def test_features_that_turn_slowly_across_the_grid_fall_monotonically() -> None:
    angles = torch.linspace(0, 1.5, 7)
    row = torch.stack([angles.cos(), angles.sin()])
    found = similarity_by_distance(row[None, :, None, :].expand(3, 2, 7, 7))
    medians = [each.quartiles[1] for each in found]
    assert all(near > far for near, far in itertools.pairwise(medians[1:]))


def test_images_are_not_compared_with_each_other() -> None:
    opposite = torch.stack([torch.ones(2, 3, 3), -torch.ones(2, 3, 3)])
    assert all(each.percentiles[0] == pytest.approx(1) for each in similarity_by_distance(opposite))


def test_the_length_of_a_region_s_vector_does_not_matter() -> None:
    features = _features(2, 3, 4, 4)
    scaled = features * torch.rand(2, 1, 4, 4, dtype=torch.float64).add(0.1)
    for a, b in zip(similarity_by_distance(features), similarity_by_distance(scaled), strict=True):
        assert a.percentiles == pytest.approx(b.percentiles)


def test_a_single_region_has_no_pairs() -> None:
    assert similarity_by_distance(_features(2, 3, 1, 1)) == ()
