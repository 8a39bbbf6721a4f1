"""All eight orientations, wherever a format keeps them: what is stored stands upright."""

import textwrap
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_shards.images.conversion import convert_mask
from data_shards.images.notes import Note
from data_shards.images.orientation import Metadata, orientation_in
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
NAMES = "http://ns.adobe.com/tiff/1.0/"
# As programs may spell it: the standard fixes the name behind a prefix, and nothing else.
SPELLINGS = {
    "attribute": XMP,
    "single quotes": "<a tiff:Orientation = '{}'/>",
    "other prefix": f'<a xmlns:t="{NAMES}"><b t:Orientation="{{}}"/></a>',
    "prefix behind its use": f'<b t:Orientation="{{}}" xmlns:t="{NAMES}"/>',
    "element": f'<a xmlns:tiff="{NAMES}"><tiff:Orientation>\n {{}} </tiff:Orientation></a>',
    "element of a language": '<tiff:Orientation xml:lang="x-default">{}</tiff:Orientation>',
    "element without prefix": f'<Orientation xmlns="{NAMES}">{{}}</Orientation>',
    "character by number": "<tiff:Orientation>&#x3{};</tiff:Orientation>",
    "marked section": "<tiff:Orientation><![CDATA[{}]]></tiff:Orientation>",
    "packet": "<?xpacket begin='\ufeff'?><a tiff:Orientation='{}'/>\n\n<?xpacket end='w'?>",
    "behind another": '<a xmlns:o="x" o:Orientation="3"><b tiff:Orientation="{}"/></a>',
    "of two bytes": "<?xml version='1.0' encoding='UTF-16'?><a tiff:Orientation='{}'/>",
}
PROFILES = ("tEXt exif", "zTXt exif", "iTXt exif", "zTXt APP1", "tEXt APP1", "zTXt xmp")
XMPS = ("jpeg xmp", "png xmp behind the pixels", "png packed xmp", "tiff xmp")
FORMATS = ("jpeg", "png", *PROFILES, "tiff", *XMPS)


def text_chunk(kind: str, keyword: bytes, text: bytes) -> tuple[bytes, bytes]:
    """A chunk that holds `text`, packed where its kind may be."""
    before = {"tEXt": b"", "zTXt": b"\0", "iTXt": b"\1\0en\0\0"}[kind]
    return kind.encode(), keyword + b"\0" + before + (zlib.compress(text) if before else text)


def raw_profile(kind: str, name: str, block: bytes) -> tuple[bytes, bytes]:
    """A block as ImageMagick keeps it in a PNG."""
    digits = "\n".join(textwrap.wrap(block.hex(), 72))
    words = f"\n{name}\n{len(block):8}\n{digits}\n"
    return text_chunk(kind, f"Raw profile type {name}".encode(), words.encode())


def laid(folder: Path, kind: str, orientation: int) -> Path:
    """The scene laid down by `orientation`, in a file that says so."""
    pixels = np.ascontiguousarray(LAID[orientation](scene().astype(np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return with_metadata(folder, kind, pixels, exif, XMP.format(orientation).encode())


def with_metadata(folder: Path, kind: str, pixels: Pixels, exif: Image.Exif, packet: bytes) -> Path:
    """`pixels` in a file that holds `exif`, or `packet` where its kind is one of XMPS."""
    height, width = pixels.shape
    if kind == "jpeg":
        return write(folder, "a.jpg", jpeg(pixels, exif=exif))
    if kind == "jpeg xmp":
        return write(folder, "a.jpg", jpeg(pixels, xmp=packet))
    if kind.startswith("tiff"):
        said = {700: packet} if kind == "tiff xmp" else {274: [exif[0x0112]]}
        tags = grey_tags(8, width=width, height=height) | said
        return write(folder, "a.tif", tiff((tags, [pixels.tobytes()])))
    block = exif.tobytes()
    chunk = (b"eXIf", block.removeprefix(b"Exif\0\0"))
    if kind in PROFILES:
        text, name = kind.split()
        chunk = raw_profile(text, name, packet if name == "xmp" else block)
    elif kind == "png xmp behind the pixels":
        chunk = (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
    elif kind == "png packed xmp":
        chunk = text_chunk("iTXt", b"XML:com.adobe.xmp", packet)
    chunks = [rows(pixels), chunk] if "behind" in kind else [chunk, rows(pixels)]
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


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_xmp_is_understood_in_every_spelling(spelling: str) -> None:
    for orientation in LAID:
        packet = SPELLINGS[spelling].format(orientation)
        encoded = packet.encode("utf-16" if spelling == "of two bytes" else "utf-8")
        for padded in (encoded, encoded + b"\0", b" \n" + encoded):
            if spelling != "of two bytes" or padded is encoded:
                assert orientation_in(Metadata(xmp=[padded])) == (orientation, "")


@pytest.mark.parametrize(
    ("packet", "said"),
    [
        (b"<a tiff:Orientation='0'/>", "orientation 0"),
        (b"<a tiff:Orientation='9'/>", "orientation 9"),
        (b"<a tiff:Orientation='Rotate 90 CW'/>", "orientation Rotate 90 CW"),
        (b"<tiff:Orientation/>", "orientation "),
        (b"<a tiff:Orientation='6'", "metadata that cannot be read"),
        (b"<!DOCTYPE a [<!ENTITY b '6'>]><a tiff:Orientation='&b;'/>", "metadata that cannot"),
        (b"<a exif:Orientation='6' xmlns:tiff='x' tiff:Orientation='6'/>", ""),
        (b"", "metadata that cannot be read"),
    ],
)
def test_xmp_that_names_no_orientation_leaves_the_picture_and_is_told(
    packet: bytes, said: str
) -> None:
    number, wrong = orientation_in(Metadata(xmp=[packet]))
    assert number == 1
    assert wrong.startswith(said)
    assert bool(wrong) == bool(said)


@pytest.mark.parametrize("kind", ["jpeg", "png", "zTXt exif", "tiff"])
@pytest.mark.parametrize("value", [0, 9, 65535])
def test_numbers_that_are_no_orientation_mean_none_and_are_noted(
    tmp_path: Path, kind: str, value: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    path = with_metadata(tmp_path, kind, scene().astype(np.uint8), exif, b"")
    pixels, converted = stored(path)
    assert np.abs(np.array(quarters(pixels)) - QUARTERS).max() <= 1
    assert converted.notes == (Note("orientation_unknown", f"orientation {value}"),)
    assert stored(path, as_stored=True)[1].notes == ()


@pytest.mark.parametrize(
    ("value", "note"),
    [(b"Rotate 90 CW\0", "orientation of no number"), ([6, 6], None), ([0], "orientation 0")],
)
def test_a_tag_of_a_tiff_that_is_no_number_is_noted(
    tmp_path: Path, value: bytes | list[int], note: str | None
) -> None:
    pixels = np.ascontiguousarray(LAID[6](scene().astype(np.uint8)))
    tags = grey_tags(8, width=HEIGHT, height=WIDTH) | {274: value}
    [said] = stored(write(tmp_path, "a.tif", tiff((tags, [pixels.tobytes()]))))[1].notes
    assert said == (Note("orientation_unknown", note) if note else Note("turned", "orientation 6"))


def test_exif_comes_before_xmp_and_the_first_that_names_one_of_the_eight_counts() -> None:
    def exif(value: int | bytes) -> bytes:
        return tiff(({274: [value] if isinstance(value, int) else value}, [b""]))

    xmp = b"<a tiff:Orientation='8'/>"
    assert orientation_in(Metadata(exif=[exif(3)], xmp=[xmp])) == (3, "")
    assert orientation_in(Metadata(exif=[exif(0), exif(5)], xmp=[xmp])) == (5, "")
    assert orientation_in(Metadata(exif=[exif(b"6\0")])) == (6, "")
    assert orientation_in(Metadata(exif=[exif(b"up\0")], xmp=[xmp])) == (8, "")
    assert orientation_in(Metadata(exif=[b"no TIFF header"], xmp=[xmp])) == (8, "")
    assert orientation_in(Metadata(own=["2"], exif=[exif(3)])) == (2, "")
    assert orientation_in(Metadata(exif=[exif(b"up\0")])) == (1, "orientation up")


def test_metadata_that_cannot_be_read_leave_the_picture_and_are_noted(tmp_path: Path) -> None:
    damaged = [
        (b"zTXt", b"Raw profile type exif\0\0no stream"),
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 8\n45786966\n")[:-6]),
        text_chunk("tEXt", b"Raw profile type exif", b"\nexif\n  99\n45786966\n"),
        text_chunk("zTXt", b"Raw profile type APP1", b"\nexif\n  4\nno digits\n"),
        (b"eXIf", b"not a TIFF header"),
        text_chunk("iTXt", b"XML:com.adobe.xmp", b"<a"),
    ]
    paths = [write(tmp_path, "a.jpg", jpeg(exif=b"Exif\0\0" + b"not a TIFF header"))]
    for number, chunk in enumerate(damaged):
        paths.append(write(tmp_path, f"{number}.png", png(chunk, rows(scene()))))
    for path in paths:
        pixels, converted = stored(path)
        assert np.abs(np.array(quarters(pixels)) - QUARTERS).max() <= 1
        [note] = converted.notes
        assert note == Note("orientation_unknown", "metadata that cannot be read")


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
