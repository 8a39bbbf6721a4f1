import numpy as np
import pytest

from data_shards.images.content import look_at
from data_shards.images.notes import Note, told
from tests.data_shards.images.drawn import Pixels, jpeg, noise


def marked(size: int) -> Pixels:
    """Black but for a white marker."""
    pixels = np.zeros((size, size), np.uint8)
    pixels[:5, :5] = 255
    return pixels


@pytest.mark.parametrize(
    ("pixels", "notes"),
    [
        (np.zeros((48, 64), np.uint8), [Note("plain", "grey levels 0 to 0")]),
        (np.full((48, 64), 255, np.uint8), [Note("plain", "grey levels 255 to 255")]),
        (100 + noise(64, 48) // 10, [Note("plain", "grey levels 100 to 125")]),
        (marked(100), [Note("plain", "grey levels 0 to 0")]),
        (noise(64, 48), []),
        (noise(6000, 1), [Note("small", "6000 x 1 px")]),
        (noise(15, 300), [Note("small", "15 x 300 px")]),
        (noise(16, 300), []),
        (
            np.full((1, 1), 128, np.uint8),
            [Note("plain", "grey levels 128 to 128"), Note("small", "1 x 1 px")],
        ),
    ],
)
def test_stored_images_with_nothing_to_see_are_noted(pixels: Pixels, notes: list[Note]) -> None:
    assert list(look_at(jpeg(pixels, quality=100)).notes) == notes


def test_each_kind_of_note_is_one_line_with_counts_and_the_first_names() -> None:
    narrow = [(f"p{i}.image0.jpg", "unused_bits", f"{12 - i % 2} bits of 16") for i in range(9)]
    lines = told([*narrow, ("q.image0.jpg", "small", "1 x 1 px")], images=1234)
    assert len(lines) == 2
    assert lines[0].startswith("9 of 1,234 images use fewer bits than their files have")
    assert (
        "(12 bits of 16: 5, 11 bits of 16: 4; first p0.image0.jpg, p1.image0.jpg, p2." in lines[0]
    )
    assert "source.bits" in lines[0]
    assert lines[1].startswith("1 of 1,234 images have a side under 16 px (1 x 1 px: 1; first q.")
    assert told([], images=3) == ()
