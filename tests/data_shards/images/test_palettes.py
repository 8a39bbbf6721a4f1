"""Palettes that are short, cut or of another depth: looked up rightly, or refused."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_shards.images.conversion import convert_mask
from data_shards.images.refusals import BadImageError
from tests.data_shards.images.drawn import (
    HEIGHT,
    QUARTERS,
    WIDTH,
    Samples,
    grey_tags,
    packed,
    png,
    quarters,
    rows,
    scene,
    stored,
    tiff,
    write,
)

# The numbers of the four quarters in the palette.
NUMBERS = (0, 1, 2, 3)


def numbered(numbers: Sequence[int] = NUMBERS) -> Samples:
    """The scene in numbers of a palette."""
    places = np.searchsorted(QUARTERS, scene())
    return np.array(numbers, np.uint8)[places]


def grey_palette(colours: int) -> list[int]:
    """Grey levels, those of the quarters first."""
    return [*QUARTERS, *range(10, 250)][:colours]


def bmp(
    numbers: Samples,
    palette: Sequence[int],
    bits: int = 8,
    *,
    used: int | None = None,
    old: bool = False,
) -> bytes:
    """A BMP with a grey palette, of which it says that it has `used` colours."""
    width, height = numbers.shape[1], numbers.shape[0]
    if old:
        header = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        said = len(palette) if used is None else used
        header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 0, 0, said, 0)
    colours = b"".join(bytes([each] * 3) + (b"" if old else b"\0") for each in palette)
    start = 14 + len(header) + len(colours)
    pixels = packed(numbers[::-1], bits)
    return (
        b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + colours + pixels
    )


def palette_tiff(numbers: Samples, colour_map: Sequence[int], bits: int = 8) -> bytes:
    tags = grey_tags(bits, 3) | ({320: colour_map} if colour_map else {})
    return tiff((tags, [packed(numbers, bits)]))


def three(levels: Sequence[int], scale: int = 257) -> list[int]:
    """A TIFF's colour map: all reds, all greens, all blues."""
    return [scale * each for each in levels] * 3


def plte(levels: Sequence[int]) -> tuple[bytes, bytes]:
    return b"PLTE", bytes(each for level in levels for each in [level] * 3)


def palette_png(numbers: Samples, levels: Sequence[int]) -> bytes:
    return png(plte(levels), rows(numbers), colour=3)


MAKERS: dict[str, Callable[[Samples, Sequence[int]], bytes]] = {
    "png": palette_png,
    "tif": lambda numbers, levels: palette_tiff(numbers, three(levels)),
    "bmp": bmp,
}


@pytest.mark.parametrize("suffix", MAKERS)
@pytest.mark.parametrize("colours", [4, 5, 16, 200])
def test_a_short_palette_is_looked_up_as_long_as_it_reaches(
    tmp_path: Path, suffix: str, colours: int
) -> None:
    make, palette = MAKERS[suffix], grey_palette(colours)
    path = write(tmp_path, f"a.{suffix}", make(numbered(), palette))
    assert quarters(stored(path)[0]) == QUARTERS
    path = write(tmp_path, f"a.{suffix}", make(numbered((0, 1, 2, colours)), palette))
    wanted = f"truncated or damaged image .colour {colours} of a palette of {colours}.*restore"
    with pytest.raises(BadImageError, match=wanted):
        stored(path)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_colour_maps_of_a_tiff_are_read_at_every_depth_and_with_eight_bits_a_colour(
    tmp_path: Path, bits: int
) -> None:
    numbers = numbered((0, 1, 0, 1) if bits == 1 else NUMBERS)
    levels = grey_palette(2**bits)
    for scale in (257, 256, 1):
        payload = palette_tiff(numbers, three(levels, scale), bits)
        found = quarters(stored(write(tmp_path, "a.tif", payload))[0])
        assert found == [levels[each] for each in ((0, 1, 0, 1) if bits == 1 else NUMBERS)]


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (palette_tiff(numbered(), []), "no palette"),
        (palette_tiff(numbered(), [0] * 767), "a palette whose last colour is cut"),
        (png(rows(numbered()), colour=3), "no palette"),
        (png((b"PLTE", bytes(13)), rows(numbered()), colour=3), "last colour is cut"),
        (png(plte([0]), plte(QUARTERS), rows(numbered()), colour=3), "two palettes"),
    ],
    ids=["tiff none", "tiff cut", "png none", "png cut", "png two"],
)
def test_palettes_that_are_cut_or_not_there_are_refused(
    tmp_path: Path, payload: bytes, said: str
) -> None:
    with pytest.raises(BadImageError, match=rf"truncated or damaged image .*{said}"):
        stored(write(tmp_path, "a", payload))


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("old", [False, True])
def test_palettes_of_a_bmp_are_read_at_every_depth(tmp_path: Path, bits: int, old: bool) -> None:
    numbers = (1, 0, 1, 0) if bits == 1 else NUMBERS
    levels = grey_palette(2**bits)
    levels += [0] * (2**bits - len(levels))
    payload = bmp(numbered(numbers), levels, bits, old=old)
    found = quarters(stored(write(tmp_path, "a.bmp", payload))[0])
    assert found == [levels[each] for each in numbers]


def test_a_bmp_that_says_nothing_of_its_colours_has_those_before_its_pixels(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, "a.bmp", bmp(numbered(), QUARTERS, used=0))
    assert quarters(stored(path)[0]) == QUARTERS
    path = write(tmp_path, "a.bmp", bmp(numbered((0, 1, 2, 4)), QUARTERS, used=0))
    with pytest.raises(BadImageError, match="colour 4 of a palette of 4"):
        stored(path)


def test_two_colours_of_eight_bits_are_no_single_bits(tmp_path: Path) -> None:
    inside = numbered((0, 1, 1, 0))
    path = write(tmp_path, "a.bmp", bmp(inside, [0, 255]))
    assert quarters(stored(path)[0]) == [0, 255, 255, 0]
    mask = convert_mask(path, original=(WIDTH, HEIGHT), stored=(WIDTH, HEIGHT))
    mask_path = write(tmp_path, "m.png", mask)
    assert quarters(np.asarray(Image.open(mask_path))) == [0, 255, 255, 0]


def test_grey_levels_that_are_their_own_numbers_still_end_where_the_palette_does(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, "a.bmp", bmp(scene(), range(205)))
    assert quarters(stored(path)[0]) == QUARTERS
    for payload, said in (
        (bmp(scene(), range(204)), "colour 204 of a palette of 204"),
        (bmp(numbered(), range(16), 4), "grey levels 0 to 15"),
    ):
        with pytest.raises(BadImageError, match=said):
            stored(write(tmp_path, "a.bmp", payload))
