"""Depth, sign and photometric meaning of whole files: stored right, or noted, or refused."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_shards.images.conversion import convert_mask
from data_shards.images.notes import Note
from data_shards.images.refusals import BadImageError
from tests.data_shards.images.drawn import (
    HEIGHT,
    QUARTERS,
    WIDTH,
    Tags,
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


def narrow(folder: Path, bits: int, suffix: str) -> Path:
    """The scene in samples of `bits` that a file of 16 bits holds."""
    samples = scene(2**bits - 1).astype(np.uint16)
    if suffix == "png":
        return write(folder, "a.png", png(rows(samples), depth=16))
    return write(folder, "a.tif", tiff((grey_tags(16), [samples.astype("<u2").tobytes()])))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15])
def test_samples_that_use_a_part_of_their_bits_are_noted_and_mended_by_a_setting(
    tmp_path: Path, suffix: str, bits: int
) -> None:
    path = narrow(tmp_path, bits, suffix)
    pixels, converted = stored(path)
    assert converted.notes == (Note("unused_bits", f"{bits} bits of 16"),)
    assert quarters(pixels)[-1] <= 204 / 2 ** (16 - bits) + 1
    for depth in (bits, "in_use"):
        pixels, converted = stored(path, depth=depth)
        assert quarters(pixels) == QUARTERS
        assert converted.notes == ()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_all_bits_in_use_are_as_good_as_declared(tmp_path: Path, suffix: str) -> None:
    path = narrow(tmp_path, 16, suffix)
    for depth in (None, 16, "in_use"):
        pixels, converted = stored(path, depth=depth)
        assert quarters(pixels) == QUARTERS
        assert converted.notes == ()
    with pytest.raises(BadImageError, match=r"more than 12 bits .16 bits are in use.: .*in_use"):
        stored(path, depth=12)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_marker_burnt_in_at_full_white_does_not_hide_the_bits_of_the_picture(
    tmp_path: Path, suffix: str
) -> None:
    samples = scene(4095).astype(np.uint16)
    samples[2:8, 2:8] = 65535
    payload = png(rows(samples), depth=16)
    if suffix == "tif":
        payload = tiff((grey_tags(16), [samples.astype("<u2").tobytes()]))
    path = write(tmp_path, f"a.{suffix}", payload)
    detail = "12 bits of 16 for all but 2 % of their samples"
    assert stored(path)[1].notes == (Note("unused_bits", detail),)
    for depth in (12, "in_use"):
        pixels, converted = stored(path, depth=depth)
        assert quarters(pixels)[1:] == QUARTERS[1:]
        assert pixels[4, 4] >= 250
        assert converted.notes == (Note("clipped", "2 % of their samples"),)


def test_eight_bits_that_hold_fewer_follow_the_same_rule(tmp_path: Path) -> None:
    path = write(tmp_path, "a.png", png(rows(scene(15))))
    assert stored(path)[1].notes == (Note("unused_bits", "4 bits of 8"),)
    assert quarters(stored(path, depth=4)[0]) == [51, 102, 153, 204]


def test_colour_of_sixteen_bits_that_uses_fewer_is_noted_and_refused_with_the_setting(
    tmp_path: Path,
) -> None:
    whole, narrow = (np.dstack([scene(top)] * 3) for top in (65535, 4095))
    path = write(tmp_path, "a.png", png(rows(whole), depth=16, colour=2))
    assert quarters(stored(path)[0]) == QUARTERS
    assert stored(path)[1].notes == ()
    path = write(tmp_path, "a.png", png(rows(narrow), depth=16, colour=2))
    assert stored(path)[1].notes == (Note("unused_bits", "12 bits of 16"),)
    for depth in (12, "in_use"):
        with pytest.raises(BadImageError, match=r"16-bit colour .*: save it in grey"):
            stored(path, depth=depth)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [2, 4, 8, 12, 16])
@pytest.mark.parametrize("compression", [1, 8])
def test_declared_bits_and_the_zero_of_a_tiff_decide_in_either_byte_order(
    tmp_path: Path, order: str, photometric: int, bits: int, compression: int
) -> None:
    top = 2**bits - 1
    samples = scene(top) if photometric else (top - scene(top)).astype(scene(top).dtype)
    data = samples.astype(order + "u2").tobytes() if bits == 16 else packed(samples, bits)
    data = data if compression == 1 else zlib.compress(data)
    tags = grey_tags(bits, photometric) | {259: [compression]}
    pixels, converted = stored(write(tmp_path, "a.tif", tiff((tags, [data]), order=order)))
    expected = [round(value * top / 255) * 255 / top for value in QUARTERS]
    assert np.abs(np.array(quarters(pixels)) - expected).max() <= 1
    assert not converted.notes


@pytest.mark.parametrize(
    ("tags", "cause"),
    [
        (grey_tags(14), "14 bits, unsigned, photometric: black is zero, uncompressed"),
        (grey_tags(64) | {339: [3]}, "64 bits, floating point"),
        (grey_tags(16) | {339: [3]}, "16 bits, floating point"),
        (grey_tags(16) | {258: [16] * 2, 277: [2], 338: [2]}, "2 x 16 bits, unsigned"),
        (grey_tags(16) | {259: [6]}, "compression 6"),
        (grey_tags(16) | {259: [4]}, "compression 4"),
        (grey_tags(8, 8) | {258: [8] * 3, 277: [3]}, "CIE Lab|photometric: 8"),
        (grey_tags(8, 6) | {258: [8] * 3, 277: [3]}, "YCbCr, uncompressed"),
        (grey_tags(8, 2) | {258: [8, 16, 8], 277: [3]}, "channels of several depths"),
        ({k: v for k, v in grey_tags(8).items() if k != 262}, "whether black or white is zero"),
    ],
)
def test_layouts_that_are_not_read_are_named(tmp_path: Path, tags: Tags, cause: str) -> None:
    pixels = bytes(WIDTH * HEIGHT * tags[258][0] * tags[277][0] // 8)
    path = write(tmp_path, "a.tif", tiff((tags, [pixels])))
    with pytest.raises(
        BadImageError, match=f"a TIFF of a kind that is not read .*({cause})"
    ) as bad:
        stored(path)
    assert "bad_images=drop" in str(bad.value)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
def test_signed_samples_are_called_so(tmp_path: Path, bits: int, order: str) -> None:
    tags = grey_tags(bits) | {339: [2]}
    path = write(tmp_path, "a.tif", tiff((tags, [bytes(WIDTH * HEIGHT * bits // 8)]), order=order))
    with pytest.raises(BadImageError, match="signed samples: shift and scale them"):
        stored(path)


@pytest.mark.parametrize("sample_format", [1, 2, 3])
def test_samples_of_32_bits_are_called_so_but_make_masks(
    tmp_path: Path, sample_format: int
) -> None:
    tags = grey_tags(32) | {339: [sample_format]}
    inside = (scene() > 120).astype("<f4" if sample_format == 3 else "<u4")
    path = write(tmp_path, "a.tif", tiff((tags, [inside.tobytes()])))
    with pytest.raises(BadImageError, match="an image of 32-bit samples: convert it to 8 or 16"):
        stored(path)
    mask = convert_mask(path, original=(WIDTH, HEIGHT), stored=(WIDTH, HEIGHT))
    write(tmp_path, "m.png", mask)
    assert quarters(np.asarray(Image.open(tmp_path / "m.png"))) == [0, 0, 255, 255]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("tiled", [False, True])
def test_planes_of_colour_are_read_one_by_one(
    tmp_path: Path, order: str, bits: int, tiled: bool
) -> None:
    grey = scene(2**bits - 1)
    plane = grey.astype(f"{order}u{bits // 8}")
    tags = grey_tags(bits, 2) | {258: [bits] * 3, 277: [3], 284: [2]}
    strips = [plane.tobytes()] * 3
    if tiled:
        tags |= {322: [32], 323: [16]}
        del tags[278]
        tiles = [plane[y : y + 16, x : x + 32] for y in range(0, 48, 16) for x in (0, 32)]
        strips = [tile.tobytes() for tile in tiles] * 3
    assert (
        quarters(stored(write(tmp_path, "a.tif", tiff((tags, strips), order=order)))[0]) == QUARTERS
    )


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_palettes_decide_even_when_they_are_inverted(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray((255 - scene()).astype(np.uint8)).convert("P")
    image.putpalette([255 - level // 3 for level in range(768)])
    image.save(tmp_path / f"a.{suffix}")
    assert quarters(stored(tmp_path / f"a.{suffix}")[0]) == QUARTERS


def test_a_mask_whose_zero_is_white_is_inside_where_it_is_not_black(tmp_path: Path) -> None:
    for bits in (1, 8, 16):
        inside = (scene() > 120) * (2**bits - 1)
        samples = (2**bits - 1 - inside).astype("<u2")
        data = samples.tobytes() if bits == 16 else packed(samples, bits)
        path = write(tmp_path, "m.tif", tiff((grey_tags(bits, 0), [data])))
        mask = convert_mask(path, original=(WIDTH, HEIGHT), stored=(WIDTH, HEIGHT))
        write(tmp_path, "m.png", mask)
        assert quarters(np.asarray(Image.open(tmp_path / "m.png"))) == [0, 0, 255, 255]


def test_ink_of_a_jpeg_that_does_not_say_what_zero_is_is_refused(tmp_path: Path) -> None:
    black = np.dstack([np.zeros_like(scene())] * 3 + [255 - scene()])
    Image.fromarray(black, "CMYK").save(tmp_path / "a.jpg", quality=100)
    assert quarters(stored(tmp_path / "a.jpg")[0]) == QUARTERS
    whole = (tmp_path / "a.jpg").read_bytes()
    with pytest.raises(BadImageError, match="whether 0 is ink or none"):
        stored(write(tmp_path, "b.jpg", whole.replace(b"Adobe", b"adobe")))
