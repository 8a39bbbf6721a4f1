"""What a file is, how many pictures it holds, and why it cannot be opened."""

import errno
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_shards.images.conversion import convert_image
from data_shards.images.refusals import BadImageError
from tests.data_shards.images.drawn import (
    HEIGHT,
    QUARTERS,
    WIDTH,
    grey_tags,
    jpeg,
    png,
    quarters,
    rows,
    scene,
    stored,
    tiff,
    write,
)

LEFTOVERS = {
    b"": "an empty file: fetch the file again",
    b"\0" * 5000: "a file that begins with zeros alone: fetch",
    b"<!DOCTYPE html><html>403": "a web page or an error message of a server: fetch",
    b"\xef\xbb\xbf\n <HTML>": "a web page",
    b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>': "error message of a server",
    b"HTTP/1.1 403 Forbidden\r\n": "error message of a server",
    b"version https://git-lfs.github.com/spec/v1\noid": "a Git LFS pointer: run git lfs pull",
    b"/annex/objects/SHA256E-s3--0a.png\n": "a git-annex pointer: run git annex get",
    b'{"error": "quota exceeded"}': "text, not a JPEG, PNG, TIFF, BMP or DICOM image: fetch",
    b"GIF89a": "a GIF, not a JPEG, PNG, TIFF, BMP or DICOM image: convert it",
    b"RIFF\1\2\3\4WEBPVP8 ": "a WebP image, not a",
    b"\0\0\0\x0cjP  \r\n\x87\n": "a JPEG 2000 image, not a",
    b"\0\0\0\x18ftypheic": "a HEIC or AVIF image",
    b"\x93NUMPY\1\0": "a NumPy array, not a",
    b"PK\x03\x04": "a zip archive, not a JPEG, PNG, TIFF, BMP or DICOM image: unpack it",
    b"\x1f\x8b\x08": "a gzip archive, not a JPEG, PNG, TIFF, BMP or DICOM image: unpack it",
    b"%PDF-1.7": "a PDF",
    b"\x00\x05\x16\x07\x00\x02": "a file that macOS leaves .*: name the file itself",
    b"\x01\x02\x03\x04\x05": "not a JPEG, PNG, TIFF, BMP or DICOM image: convert it",
    b"\x89PNG\n\x1a\n\0\0\0\x0dIHDR": "truncated or damaged image .it was taken for text",
    b"\x89PNG\r\r\n\x1a\r\n": "truncated or damaged image .it was taken for text",
    "\ufffd\ufffd\ufffd\ufffd\0\x10JFIF".encode(): "truncated or damaged image .it was taken for",
    b"data:image/png;base64,iVBORw0KGgo": "text of base64, not a .*: decode it",
    b"/9j/4AAQSkZJRgABAQ": "text of base64, not a .*: decode it",
    b"\x89PNG": r"truncated or damaged image .4 bytes.: restore the file",
    b"\x89PNG\r\n\x1a\n": "truncated or damaged image",
    b"\xff\xd8\xff": "truncated or damaged image",
    b"II\x2a\0\x08\0\0\0": "truncated or damaged image",
    b"BM": "truncated or damaged image",
    b"\r\n\xff\xd8\xff\xe0": "other bytes before the picture .a JPEG from byte 2 on.: cut",
    b"\xff\xff\xd8\xff\xe1": "a JPEG from byte 1 on",
    b"\xef\xbb\xbf\x89PNG\r\n\x1a\n": "a PNG from byte 3 on",
    b"\nII*\0\x08": "a TIFF from byte 1 on",
    b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n\xff\xd8\xff\xe0": "a JPEG from byte 30 on",
    b"--a\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n\x1a\n": "a PNG from byte 32 on",
    b"\0" * 9 + b"\xff\xd8\xff\xdb": "a JPEG from byte 9 on",
}


@pytest.mark.parametrize("content", LEFTOVERS)
def test_what_holds_no_picture_is_named_with_a_remedy_that_helps(
    tmp_path: Path, content: bytes
) -> None:
    path = write(tmp_path, "a.png", content)
    with pytest.raises(BadImageError, match=LEFTOVERS[content]) as bad:
        stored(path)
    assert str(bad.value).startswith(f"{path}: ")
    assert str(bad.value).endswith(", or pass bad_images=drop")


def test_the_content_decides_whatever_the_name_says(tmp_path: Path) -> None:
    assert np.abs(np.array(quarters(stored(write(tmp_path, "a.png", jpeg()))[0])) - 128).min() > 20
    assert quarters(stored(write(tmp_path, "a.dcm", png(rows(scene()))))[0]) == QUARTERS


def test_several_full_pages_are_refused_in_every_format(tmp_path: Path) -> None:
    page = (grey_tags(8), [scene().tobytes()])
    animation = png((b"acTL", struct.pack(">II", 3, 0)), rows(scene()))
    one = Image.fromarray(scene())
    one.save(tmp_path / "c.jpg", "MPO", save_all=True, append_images=[one])
    for path, seen in (
        (write(tmp_path, "a.tif", tiff(page, page)), "2 pages"),
        (write(tmp_path, "b.png", animation), "3 pages"),
        (tmp_path / "c.jpg", "2 pages"),
        (write(tmp_path, "e.jpg", jpeg() + jpeg()), "a JPEG behind its end"),
        (write(tmp_path, "f.jpg", jpeg() + b"\r\n" + png(rows(scene()))), "a PNG behind its end"),
        (write(tmp_path, "g.png", png(rows(scene())) * 2), "a PNG behind its end"),
    ):
        with pytest.raises(BadImageError, match=f"several pages .{seen}.: split it") as bad:
            stored(path)
        assert bad.value.reason == "a file of several pages"
    still = png((b"acTL", struct.pack(">II", 1, 0)), rows(scene()))
    assert quarters(stored(write(tmp_path, "d.png", still))[0]) == QUARTERS


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("marks", [{254: [1]}, {254: [4]}, {255: [2]}])
def test_thumbnails_and_masks_beside_the_picture_are_passed_over(
    tmp_path: Path, order: str, marks: dict[int, list[int]]
) -> None:
    aside = (grey_tags(8, width=8, height=8) | marks, [bytes(64)])
    page = (grey_tags(8), [scene().tobytes()])
    for pages in ((aside, page), (page, aside), (aside, page, aside)):
        pixels, converted = stored(write(tmp_path, "a.tif", tiff(*pages, order=order)))
        assert (quarters(pixels), converted.original_size) == (QUARTERS, (WIDTH, HEIGHT))
    with pytest.raises(BadImageError, match="no page of full resolution"):
        stored(write(tmp_path, "a.tif", tiff(aside, aside)))


def test_a_picture_too_large_to_read_is_called_so_and_large_ones_pass_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = png((b"IDAT", b""), size=(14_000, 13_500))
    with pytest.raises(
        BadImageError, match=r"more than the 179 Mpx that are read .189 Mpx.: shrink"
    ):
        stored(write(tmp_path, "a.png", huge))
    path = write(tmp_path, "b.png", png(rows(scene())))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert_image(path, longest_side_px=32, jpeg_quality=95)


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    write(tmp_path, "a.png", b"x")
    for name, cause in {
        "pipe.png": r"image that cannot be opened \(not a file\)",
        "folder.png": r"image that cannot be opened \(not a file\)",
        "loop.png": "image that cannot be opened",
        "x" * 300: "image that cannot be opened",
        "none.png": "missing image: restore the file",
        "a.png/b.png": "missing image: restore the file",
        "a\0b.png": "missing image .*: correct its name",
    }.items():
        with pytest.raises(BadImageError, match=cause):
            stored(tmp_path / name)


def test_an_error_of_the_disk_is_not_blamed_on_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "a.png", png(rows(scene())))

    def fails(_: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(OSError, match="Input/output error") as error:
        stored(path)
    assert not isinstance(error.value, BadImageError)


def test_long_texts_and_other_chunks_of_a_png_do_not_matter(tmp_path: Path) -> None:
    long = (b"zTXt", b"dicom\0\0" + zlib.compress(b"tag " * 1_000_000))
    profile = (b"iCCP", b"name\0\0" + zlib.compress(bytes(2_000_000)))
    chunks = (profile, (b"gAMA", b"\0\1\x86\xa0"), (b"tRNS", b"\0\7"), long, rows(scene()))
    assert quarters(stored(write(tmp_path, "a.png", png(*chunks)))[0]) == QUARTERS


def test_damage_at_any_place_is_a_refusal_or_a_picture_but_no_other_error(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tags = grey_tags(12) | {274: [6], 278: [8]}
    exif = Image.Exif()
    exif[0x0112] = 6
    files = (
        jpeg(exif=exif),
        jpeg(progressive=True),
        png((b"eXIf", exif.tobytes()[6:]), rows(scene(65535)), depth=16),
        tiff((tags, [bytes(8 * 96)] * 6)),
        tiff((grey_tags(8) | {259: [7]}, [jpeg()])),
    )
    outcomes = set()
    for data in files:
        for _ in range(60):
            damaged = bytearray(data)
            # Headers decide most.
            at = int(random.integers(2, min(len(data), 400)))
            damaged[at] = int(random.integers(256))
            try:
                stored(write(tmp_path, "a", bytes(damaged)))
                outcomes.add("stored")
            except BadImageError:
                outcomes.add("refused")
    assert outcomes == {"stored", "refused"}
