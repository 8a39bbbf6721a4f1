"""The tags of TIFF pages, read and written: what lies behind a TIFF's header, and no pixels."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_shards.images.refusals import RefusedError, damaged, not_read

# By TIFF's number of a type: its code for struct. Texts, fractions and floats decide no pixel.
_CODES = {1: "B", 3: "H", 4: "I", 7: "B", 13: "I", 16: "Q"}
_SHORT, _LONG, _BYTES = 3, 4, 7
_TABLES, _XMP = 347, 700
_MOST_PAGES = 1000
# Bits of NewSubfileType: of lower resolution, or a mask of another page.
_ASIDE = 1 | 4
_SUBFILE, _OLD_SUBFILE, _SUB_PAGES = 254, 255, 330
# All that is looked at: others may hold megabytes, or nonsense.
_LOOKED_AT = {_SUBFILE, _OLD_SUBFILE, _SUB_PAGES, _TABLES, 530, _XMP}
_LOOKED_AT |= {256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320}
_LOOKED_AT |= {322, 323, 324, 325, 338, 339}


@dataclass(frozen=True, slots=True)
class Page:
    """One page: integers by tag, the byte order as struct writes it, and what is kept in bytes.

    A tag of another type has no value. `tables` are those of its JPEGs.
    """

    values: Mapping[int, tuple[int, ...]]
    order: str
    tables: bytes = b""
    xmp: bytes = b""

    def one(self, tag: int, default: int = 0) -> int:
        """The first value of a tag."""
        return next(iter(self.values.get(tag, ())), default)

    @property
    def is_aside(self) -> bool:
        """A thumbnail or a mask, by its own tags."""
        return bool(self.one(_SUBFILE) & _ASIDE) or self.one(_OLD_SUBFILE) == 2

    def written(self, strips: Sequence[bytes]) -> bytes:
        """A TIFF of this page alone, its strips or tiles as given."""
        out = bytearray((b"II" if self.order == "<" else b"MM") + b"\0" * 6)
        offsets = []
        for strip in strips:
            offsets.append(len(out))
            out += strip + b"\0" * (len(strip) % 2)
        places = (324, 325) if 322 in self.values else (273, 279)
        lengths = tuple(len(strip) for strip in strips)
        tags = {
            **{tag: values for tag, values in self.values.items() if values},
            places[0]: tuple(offsets),
            places[1]: lengths,
        }
        if self.tables:
            tags[_TABLES] = tuple(self.tables)
        entries = b""
        for tag, values in sorted(tags.items()):
            kind = _BYTES if tag == _TABLES else _SHORT if max(values) < 1 << 16 else _LONG
            payload = struct.pack(f"{self.order}{len(values)}{_CODES[kind]}", *values)
            if len(payload) > 4:
                field = struct.pack(self.order + "I", len(out))
                out += payload + b"\0" * (len(payload) % 2)
            else:
                field = payload.ljust(4, b"\0")
            entries += struct.pack(self.order + "HHI", tag, kind, len(values)) + field
        out[2:8] = struct.pack(self.order + "HI", 42, len(out))
        out += struct.pack(self.order + "H", len(tags)) + entries + b"\0" * 4
        return bytes(out)


def read_pages(data: bytes) -> list[Page]:
    """The pages of a TIFF or BigTIFF. Raises RefusedError where they cannot be followed."""
    order = "<" if data.startswith(b"II") else ">"
    big = 43 in data[2:4]
    pages: list[Page] = []
    seen: set[int] = set()
    try:
        (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        while place and place not in seen and len(pages) < _MOST_PAGES:
            seen.add(place)
            page, place = _read_page(data, place, order, big=big)
            pages.append(page)
    except (struct.error, OverflowError) as error:
        raise damaged("its tags are cut") from error
    if not pages:
        raise damaged("no page")
    return pages


def one_page(pages: Sequence[Page]) -> Page:
    """The only page of full resolution. Raises RefusedError for several."""
    full = [page for page in pages if not page.is_aside] or pages[:1]
    if len(full) > 1:
        raise RefusedError("a file of several pages", "split it", f"{len(full)} pages")
    if full[0].is_aside and (len(pages) > 1 or _SUB_PAGES in full[0].values):
        raise not_read("TIFF", "no page of full resolution")
    return full[0]


def _read_page(data: bytes, place: int, order: str, *, big: bool) -> tuple[Page, int]:
    """The page whose tags lie at `place`, and where the next one's do; 0 after the last."""
    number, entry = ("Q", "HHQ") if big else ("H", "HHI")
    (count,) = struct.unpack_from(order + number, data, place)
    place += struct.calcsize(order + number)
    size = struct.calcsize(order + entry)
    room = 8 if big else 4
    values: dict[int, tuple[int, ...]] = {}
    blocks: dict[int, bytes] = {}
    for _ in range(count):
        tag, kind, length = struct.unpack_from(order + entry, data, place)
        code = _CODES.get(kind)
        if tag in _LOOKED_AT and code is None:
            values[tag] = ()
        elif tag in _LOOKED_AT and code is not None:
            at = place + size
            if length * struct.calcsize(code) > room:
                (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, at)
            if tag == _XMP:
                blocks[tag] = data[at : at + length]
            elif length * struct.calcsize(code) > len(data):
                raise damaged("its tags are cut")
            elif tag == _TABLES:
                blocks[tag] = bytes(struct.unpack_from(f"{order}{length}{code}", data, at))
            else:
                values[tag] = struct.unpack_from(f"{order}{length}{code}", data, at)
        place += size + room
    (following,) = struct.unpack_from(order + ("Q" if big else "I"), data, place)
    tables, xmp = (blocks.get(tag, b"") for tag in (_TABLES, _XMP))
    return Page(values, order, tables, xmp), following
