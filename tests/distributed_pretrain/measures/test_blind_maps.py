from __future__ import annotations

import pytest
import torch

from data_shards.records.study import Box
from distributed_pretrain.measures.blind_maps import BlindMaps, place_of


@pytest.mark.parametrize(
    ("phrase", "place"),
    [
        ("Small right apical pneumothorax", ("right", "upper")),
        ("Patchy opacity in the LEFT lung base", ("left", "lower")),
        ("small bilateral pleural effusions", ("both", None)),
        ("2.3 cm nodule in the right middle lobe", ("right", "mid")),
        ("opacities in the left upper and lower lobes", ("left", None)),
        ("The heart is enlarged, a bright midline", (None, None)),
    ],
)
def test_a_phrases_place_is_what_its_words_say(phrase: str, place: tuple[str, str]) -> None:
    assert place_of(phrase) == place


def test_a_map_knows_as_much_as_it_is_told_or_has_seen() -> None:
    maps = BlindMaps(2)
    assert maps.phrases == 0
    corners = torch.eye(4, dtype=torch.bool).view(4, 2, 2)
    for corner, phrase, category in (
        (0, "right upper", "Mass"),
        (1, "left upper", "Mass"),
        (2, "right", "Edema"),
        (2, "left", "Edema"),
    ):
        maps.add(phrase, [Box(0, 0, 0, 1, 1, category, phrase)], corners[corner])
    assert maps.phrases == 4
    assert maps.of("right upper", "Mass", "place").flatten().tolist() == [1, 0, 0, 0]
    assert maps.of("right upper", "Mass", "category").flatten().tolist() == [0.5, 0.5, 0, 0]
    assert maps.of("right upper", "Mass", "all").flatten().tolist() == [0.25, 0.25, 0.5, 0]
    # Unseen: a place of a known category, and a category.
    assert maps.of("right lower", "Mass", "place").flatten().tolist() == [0.5, 0.5, 0, 0]
    assert maps.of("right", "Fracture", "place").flatten().tolist() == [0.25, 0.25, 0.5, 0]
