"""All eight orientations, wherever a format keeps them: what is stored stands upright."""

from collections.abc import Callable
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
    Pixels,
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

# EXIF says what the first row and column of the file are in the upright picture: 6 is "row 0 is the
# right side, column 0 the top". So the file holds the upright picture turned the other way.
LAID: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.T,
    6: lambda upright: np.rot90(upright),
    7: lambda upright: np.rot90(upright, 2).T,
    8: lambda upright: np.rot90(upright, -1),
}
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="{}"/>'
    "</rdf:RDF></x:xmpmeta>"
)
FORMATS = ("jpeg", "png", "png text", "png xmp behind the pixels", "tiff", "jpeg xmp")


def laid(folder: Path, kind: str, orientation: int) -> Path:
    """The scene laid down by `orientation`, in a file that says so."""
    pixels = np.ascontiguousarray(LAID[orientation](scene().astype(np.uint8)))
    height, width = pixels.shape
    exif = Image.Exif()
    exif[0x0112] = orientation
    packet = XMP.format(orientation)
    if kind == "jpeg":
        return write(folder, "a.jpg", jpeg(pixels, exif=exif))
    if kind == "jpeg xmp":
        return write(folder, "a.jpg", jpeg(pixels, xmp=packet.encode()))
    if kind == "tiff":
        tags = grey_tags(8, width=width, height=height) | {274: [orientation]}
        return write(folder, "a.tif", tiff((tags, [pixels.tobytes()])))
    tag = exif.tobytes()
    chunk = (b"eXIf", tag.removeprefix(b"Exif\0\0"))
    if kind == "png text":
        words = f"\nexif\n{len(tag):8}\n{tag.hex()}\n"
        chunk = (b"tEXt", b"Raw profile type exif\0" + words.encode())
    chunks = [chunk, rows(pixels)]
    if kind.startswith("png xmp"):
        text = (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet.encode())
        chunks = [rows(pixels), text]
    return write(folder, "a.png", png(*chunks, size=(width, height)))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", list(LAID))
def test_what_is_stored_stands_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    path = laid(tmp_path, kind, orientation)
    pixels, converted = stored(path)
    assert np.abs(np.array(quarters(pixels)) - QUARTERS).max() <= 1
    assert converted.size == converted.original_size == (WIDTH, HEIGHT)
    notes = (Note("turned", f"orientation {orientation}"),) if orientation != 1 else ()
    assert converted.notes == notes


@pytest.mark.parametrize("kind", FORMATS)
def test_pixels_stay_as_they_lie_where_the_tags_are_not_to_be_believed(
    tmp_path: Path, kind: str
) -> None:
    pixels, converted = stored(laid(tmp_path, kind, 6), as_stored=True)
    assert converted.original_size == (HEIGHT, WIDTH)
    assert np.abs(np.array(quarters(pixels)) - [102, 204, 51, 153]).max() <= 1
    assert converted.notes == ()


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_numbers_that_are_no_orientation_mean_none(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    pixels, converted = stored(write(tmp_path, "a.jpg", jpeg(exif=exif)))
    assert np.abs(np.array(quarters(pixels)) - QUARTERS).max() <= 1
    assert converted.notes == ()


def test_metadata_that_cannot_be_read_leave_the_picture_and_are_noted(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jpg", jpeg(exif=b"Exif\0\0" + b"not a TIFF header"))
    pixels, converted = stored(path)
    assert np.abs(np.array(quarters(pixels)) - QUARTERS).max() <= 1
    assert converted.notes == (Note("orientation_unknown"),)


def test_a_large_jpeg_on_its_side_is_shrunk_to_its_upright_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = scene(width=640, height=480).astype(np.uint8)
    path = write(tmp_path, "a.jpg", jpeg(np.ascontiguousarray(np.rot90(upright)), exif=exif))
    pixels, converted = stored(path)
    assert (converted.size, converted.original_size) == ((64, 48), (640, 480))
    assert np.abs(np.array(quarters(pixels)) - QUARTERS).max() <= 1


def test_masks_are_turned_by_the_same_rule_and_held_against_the_upright_size(
    tmp_path: Path,
) -> None:
    path = laid(tmp_path, "png", 6)
    with pytest.raises(
        BadImageError, match=r"mask of 64 x 48 px over .* 48 x 64 px: .* source.orien"
    ):
        convert_mask(path, original=(HEIGHT, WIDTH), stored=(HEIGHT, WIDTH))
    convert_mask(path, original=(HEIGHT, WIDTH), stored=(HEIGHT, WIDTH), as_stored=True)
    inside = np.ascontiguousarray(np.rot90((scene() > 180).astype(np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = 6
    chunk = (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    path = write(tmp_path, "m.png", png(chunk, rows(inside), size=(HEIGHT, WIDTH)))
    mask = write(tmp_path, "b.png", convert_mask(path, original=(64, 48), stored=(64, 48)))
    assert quarters(np.asarray(Image.open(mask))) == [0, 0, 0, 255]
