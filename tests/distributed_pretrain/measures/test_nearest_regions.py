"""The nearest regions are those of a loop, of other patients, and one an image."""

from __future__ import annotations

import itertools

import pytest
import torch

from distributed_pretrain.measures.nearest_regions import NEAREST, Region, nearest_regions

IMAGES, ROWS, COLUMNS = 8, 3, 4
PATIENTS = ["a", "b", "a", *"cdefg"]


def drawn() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(IMAGES, 5, ROWS, COLUMNS, generator=generator, dtype=torch.float64)


def test_they_are_those_of_a_loop() -> None:
    maps, query = drawn(), Region(1, 2, 3)
    asked = maps[1, :, 2, 3]
    best = []
    for image in (each for each in range(IMAGES) if each != 1):
        found = [
            (torch.cosine_similarity(asked, maps[image, :, y, x], dim=0).item(), y, x)
            for y, x in itertools.product(range(ROWS), range(COLUMNS))
        ]
        best.append((max(found), image))
    expected = sorted(best, reverse=True)[:NEAREST]
    found_regions = nearest_regions(maps, query, PATIENTS)
    assert [(each.image, each.row, each.column) for each in found_regions] == [
        (image, y, x) for (_, y, x), image in expected
    ]
    cosines = [cosine for (cosine, _, _), _ in expected]
    assert [each.cosine for each in found_regions] == pytest.approx(cosines)


def test_the_same_region_elsewhere_is_found_first_and_never_the_patient_s_own() -> None:
    maps = drawn()
    maps[2] = maps[0]  # the same patient's
    maps[5, :, 0, 2] = 3 * maps[0, :, 1, 1]
    first, *others = nearest_regions(maps, Region(0, 1, 1), PATIENTS)
    assert (first.image, first.row, first.column) == (5, 0, 2)
    assert first.cosine == pytest.approx(1)
    assert {each.image for each in others}.isdisjoint({0, 2, 5})
