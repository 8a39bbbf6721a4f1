"""A picture of which a part is missing is refused, also where a decoder fills in what it lacks."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_shards.images.refusals import BadImageError
from data_shards.images.tiff_tags import one_page, read_pages
from tests.data_shards.images.drawn import (
    HEIGHT,
    WIDTH,
    grey_tags,
    jpeg,
    noise,
    packed,
    png,
    quarters,
    rows,
    scene,
    stored,
    tiff,
    write,
)

JPEGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 4},
    "restarts by row": {"restart_marker_rows": 1},
}
damaged = pytest.raises(BadImageError, match=r"truncated or damaged image .*: restore the file, or")


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.95])
def test_a_jpeg_cut_and_closed_again_is_refused(
    tmp_path: Path, kind: str, colour: bool, share: float
) -> None:
    pixels = np.dstack([noise(), noise()[::-1], noise()[:, ::-1]]) if colour else noise()
    whole = jpeg(pixels, quality=60, **JPEGS[kind])
    stored(write(tmp_path, "whole.jpg", whole))
    with damaged:
        stored(write(tmp_path, "cut.jpg", whole[: int(len(whole) * share)] + b"\xff\xd9"))


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_that_ends_in_plain_grey_is_whole(tmp_path: Path, kind: str) -> None:
    pixels = noise()
    pixels[pixels.shape[0] // 2 :] = 128
    path = write(tmp_path, "a.jpg", jpeg(pixels, quality=90, **JPEGS[kind]))
    assert abs(quarters(stored(path)[0])[3] - 128) <= 1
    stored(write(tmp_path, "b.jpg", path.read_bytes() + b"garbage behind the end"))
    grey = np.full((40, 40), 128, np.uint8)
    stored(write(tmp_path, "c.jpg", jpeg(grey, **JPEGS[kind])))


def test_a_jpeg_without_its_end_or_an_interval_or_scan_is_refused(tmp_path: Path) -> None:
    with damaged:
        stored(write(tmp_path, "a.jpg", jpeg()[:-2]))
    whole = jpeg(noise(), restart_marker_blocks=4)
    third, fourth = whole.index(b"\xff\xd2"), whole.index(b"\xff\xd3")
    with damaged:
        stored(write(tmp_path, "b.jpg", whole[:third] + whole[fourth:]))
    whole = jpeg(noise(), progressive=True)
    last = whole.rindex(b"\xff\xda")
    with damaged:
        stored(write(tmp_path, "c.jpg", whole[:last] + b"\xff\xd9"))


def test_a_jpeg_with_a_hole_of_zeros_is_refused_and_a_black_one_is_not(tmp_path: Path) -> None:
    whole = jpeg(noise(256, 192))
    for first, last in ((0.2, 0.4), (0.5, 0.8)):
        start, end = int(len(whole) * first), int(len(whole) * last)
        with damaged:
            holed = whole[:start] + bytes(end - start) + whole[end:]
            stored(write(tmp_path, "a.jpg", holed))
    for level in (0, 128, 255):
        plain = jpeg(np.full((1024, 1024), level, np.uint8), optimize=True)
        assert bytes(512) in plain, "a run of zeros that is no hole"
        stored(write(tmp_path, "b.jpg", plain))


@pytest.mark.parametrize(("marker", "cause"), [(0xC3, "lossless"), (0xC9, "arithmetic coding")])
def test_jpegs_of_other_coders_are_named(tmp_path: Path, marker: int, cause: str) -> None:
    other = jpeg().replace(b"\xff\xc0", bytes((0xFF, marker)))
    with pytest.raises(BadImageError, match=f"a JPEG of a kind that is not read .{cause}"):
        stored(write(tmp_path, "a.jpg", other))
    twelve = jpeg().replace(b"\xff\xc0\x00\x0b\x08", b"\xff\xc0\x00\x0b\x0c")
    with pytest.raises(BadImageError, match="samples of 12 bits"):
        stored(write(tmp_path, "a.jpg", twelve))


def interlaced(samples: np.ndarray[Any, Any]) -> tuple[bytes, bytes]:
    passes = ["0088", "0488", "4084", "0244", "2042", "0122", "1021"]
    parts = [samples[y::down, x::across] for y, x, down, across in (map(int, p) for p in passes)]
    raw = b"".join(b"\0" + row.tobytes() for part in parts for row in part)
    return b"IDAT", zlib.compress(raw)


PNGS: dict[str, Callable[[np.ndarray[Any, Any]], tuple[bytes, bytes]]] = {
    "rows": rows,
    "interlaced": interlaced,
}


@pytest.mark.parametrize("kind", PNGS)
@pytest.mark.parametrize("top", [255, 65535])
def test_a_png_with_other_rows_than_its_header_says_is_refused(
    tmp_path: Path, kind: str, top: int
) -> None:
    samples, depth = scene(top).astype(">u2" if top > 255 else "u1"), 8 if top == 255 else 16
    parts: dict[str, Any] = {"depth": depth, "interlaced": int(kind == "interlaced")}
    stored(write(tmp_path, "a.png", png(PNGS[kind](samples), **parts)))
    name, packed_rows = PNGS[kind](samples)
    raw = zlib.decompress(packed_rows)
    for less in (raw[: len(raw) // 2], raw[:-1], raw + b"\0"):
        with damaged:
            stored(write(tmp_path, "a.png", png((name, zlib.compress(less)), **parts)))
    # The stream itself is cut, in chunks that are whole.
    with damaged:
        stored(write(tmp_path, "a.png", png((name, packed_rows[:-30]), **parts)))


@pytest.mark.parametrize("chunk", [b"IHDR", b"tEXt", b"IDAT", b"IEND"])
def test_a_wrong_checksum_in_any_chunk_of_a_png_is_damage(tmp_path: Path, chunk: bytes) -> None:
    data = bytearray(png((b"tEXt", b"key\0value"), rows(scene())))
    data[data.index(chunk) + (8 if chunk != b"IEND" else 5)] ^= 1
    with pytest.raises(BadImageError, match=r"truncated or damaged .*chunk"):
        stored(write(tmp_path, "a.png", bytes(data)))


def test_a_png_without_its_end_chunk_is_refused_and_garbage_behind_it_is_not(
    tmp_path: Path,
) -> None:
    whole = png(rows(scene()))
    with damaged:
        stored(write(tmp_path, "a.png", whole[:-12]))
    stored(write(tmp_path, "b.png", whole + b"garbage"))


@pytest.mark.parametrize("less", ["a strip", "bytes of a strip", "the end of the file"])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("compression", [1, 8])
def test_a_tiff_that_lacks_strips_or_a_part_of_one_is_refused(
    tmp_path: Path, less: str, bits: int, compression: int
) -> None:
    samples = scene(2**bits - 1)
    parts = [samples[row : row + 8] for row in range(0, HEIGHT, 8)]
    strips = [each.astype("<u2").tobytes() if bits == 16 else packed(each, bits) for each in parts]
    if less == "bytes of a strip":
        strips[-1] = strips[-1][:-40]
    strips = [zlib.compress(strip) if compression == 8 else strip for strip in strips]
    tags = grey_tags(bits) | {259: [compression], 278: [8]}
    if less == "the end of the file":
        # The last strip is said to lie where the file ends already.
        lengths = [len(strip) for strip in strips]
        tags |= {273: [*np.cumsum([8, *lengths[:-2]]).tolist(), 1 << 20], 279: lengths}
    data = tiff((tags, strips[:-1] if less == "a strip" else strips))
    with damaged:
        stored(write(tmp_path, "a.tif", data))


def test_a_tiff_with_more_pixels_than_its_header_says_is_refused(tmp_path: Path) -> None:
    wide = scene(65535).tobytes()
    with damaged:
        stored(write(tmp_path, "a.tif", tiff((grey_tags(8), [wide]))))
    # Some writers fill up the last strip.
    strips = [scene()[:40].tobytes(), scene()[40:].tobytes() + bytes(32 * WIDTH)]
    stored(write(tmp_path, "a.tif", tiff((grey_tags(8) | {278: [40]}, strips))))


def test_a_tiff_that_lacks_a_tile_is_refused(tmp_path: Path) -> None:
    samples = scene()
    tiles = [samples[y : y + 16, x : x + 32].tobytes() for y in (0, 16, 32) for x in (0, 32)]
    tags = {tag: values for tag, values in grey_tags(8).items() if tag != 278}
    tags |= {322: [32], 323: [16]}
    assert quarters(stored(write(tmp_path, "a.tif", tiff((tags, tiles))))[0])[3] == 204
    with damaged:
        stored(write(tmp_path, "a.tif", tiff((tags, tiles[:-1]))))


def test_a_tiff_of_jpegs_is_held_to_the_rule_of_jpegs(tmp_path: Path) -> None:
    tags = grey_tags(8, width=128, height=96) | {259: [7]}
    whole = jpeg(noise(), quality=60)
    stored(write(tmp_path, "a.tif", tiff((tags, [whole]))))
    with damaged:
        stored(write(tmp_path, "a.tif", tiff((tags, [whole[: len(whole) // 2] + b"\xff\xd9"]))))
    # The tables of Pillow's own stand apart from the strips.
    Image.fromarray(noise()).save(tmp_path / "b.tif", compression="jpeg")
    stored(tmp_path / "b.tif")


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_packed_strips_that_end_early_are_refused_without_a_word_of_the_library(
    tmp_path: Path, compression: str, capfd: pytest.CaptureFixture[str]
) -> None:
    whole, half = io.BytesIO(), io.BytesIO()
    Image.fromarray(scene()).save(whole, "TIFF", compression=compression)
    Image.fromarray(scene()[: HEIGHT // 2]).save(half, "TIFF", compression=compression)
    path = write(tmp_path, "a.tif", whole.getvalue())
    assert quarters(stored(path)[0])[3] == 204
    page = one_page(read_pages(half.getvalue()))
    strips = [
        half.getvalue()[at : at + size]
        for at, size in zip(page.values[273], page.values[279], strict=True)
    ]
    tags = grey_tags(8) | {259: page.values[259]}
    with damaged:
        stored(write(tmp_path, "b.tif", tiff((tags, strips))))
    assert capfd.readouterr().err == ""


def test_a_bmp_cut_short_is_refused(tmp_path: Path) -> None:
    Image.fromarray(scene()).save(tmp_path / "a.bmp")
    assert quarters(stored(tmp_path / "a.bmp")[0]) == [51, 102, 153, 204]
    for left in (-1, -WIDTH, 60, 20):
        with damaged:
            stored(write(tmp_path, "b.bmp", (tmp_path / "a.bmp").read_bytes()[:left]))


def test_a_bmp_whose_runs_may_leave_pixels_out_is_refused(tmp_path: Path) -> None:
    grey = b"".join(bytes([level] * 3 + [0]) for level in range(256))
    # Half of each row, and the end of the row.
    runs = b"".join(bytes([WIDTH // 2, row[0]]) + b"\0\0" for row in scene()[::-1]) + b"\0\1"
    start = 54 + len(grey)
    header = struct.pack("<IHHI", start + len(runs), 0, 0, start)
    header += struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 8, 1, len(runs), 0, 0, 0, 0)
    with pytest.raises(BadImageError, match=r"a BMP of a kind that is not read .*compression 1"):
        stored(write(tmp_path, "a.bmp", b"BM" + header + grey + runs))


def _png(colour: int, data: bytes, palette: bytes | None = None) -> bytes:
    """A PNG of 8 bits with all checksums right, whatever is in it."""

    def chunk(name: bytes, payload: bytes) -> bytes:
        crc = zlib.crc32(name + payload)
        return len(payload).to_bytes(4, "big") + name + payload + crc.to_bytes(4, "big")

    size = WIDTH.to_bytes(4, "big") + HEIGHT.to_bytes(4, "big")
    chunks = [chunk(b"IHDR", size + bytes([8, colour, 0, 0, 0]))]
    chunks += [] if palette is None else [chunk(b"PLTE", palette)]
    chunks += [chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_png_with_a_row_that_no_filter_reads_is_not_stored_black(tmp_path: Path) -> None:
    lines = [b"\0" + line.tobytes() for line in scene()]
    stored(write(tmp_path, "a.png", _png(0, b"".join(lines))))
    lines[20] = b"\x09" + lines[20][1:]
    with damaged:
        stored(write(tmp_path, "b.png", _png(0, b"".join(lines))))


@pytest.mark.parametrize("colours", [0, 100, 204])
def test_colours_that_a_palette_has_not_are_refused(tmp_path: Path, colours: int) -> None:
    lines = b"".join(b"\0" + line.tobytes() for line in scene())
    grey = bytes(level for level in range(256) for _ in range(3))
    stored(write(tmp_path, "a.png", _png(3, lines, grey)))
    with damaged:
        stored(write(tmp_path, "b.png", _png(3, lines, grey[: 3 * colours] or None)))


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("kind", ["restarts", "restarts by row"])
def test_a_jpeg_cut_at_a_restart_and_closed_is_refused(
    tmp_path: Path, kind: str, colour: bool
) -> None:
    pixels = np.dstack([noise()] * 3) if colour else noise()
    whole = jpeg(pixels, quality=60, **JPEGS[kind])
    stored(write(tmp_path, "whole.jpg", whole))
    restarts = [place for place in range(len(whole)) if whole[place : place + 2] == b"\xff\xd2"]
    with damaged:
        stored(write(tmp_path, "cut.jpg", whole[: restarts[0]] + b"\xff\xd9"))
