"""A `.beton` written and opened by FFCV: the one file of `data_shards` that imports it.

Its import sets torch to one thread, which is undone here.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from data_shards.beton.layout import FIELDS, Field
from data_shards.errors import InputError


@contextlib.contextmanager
def _threads_of_torch_kept() -> Iterator[None]:
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


with _threads_of_torch_kept():
    from ffcv.fields import BytesField, RGBImageField
    from ffcv.fields.rgb_image import IMAGE_MODES
    from ffcv.memory_allocator import MemoryAllocator
    from ffcv.reader import Reader
    from ffcv.types import ALLOC_TABLE_TYPE, CURRENT_VERSION, HeaderType
    from ffcv.writer import MIN_PAGE_SIZE, DatasetWriter, handle_sample

# What FFCV is told of the field that is none of its own by type, since the bytes come to it as
# they are and the file's origin stands in its description.
CUSTOM_FIELDS = {"image": RGBImageField}


class Row(NamedTuple):
    """A sample as it is written: `width` and `height` are the image's, in pixels."""

    record: bytes
    image: bytes
    width: int
    height: int
    others: bytes


class BetonError(InputError):
    """What is wrong with a beton: what follows its path."""


class _StoredImage(RGBImageField):
    """A JPEG that is stored as it is, where FFCV's field would encode pixels."""

    def __init__(self, origin: str) -> None:
        super().__init__(write_mode="jpg")
        self._origin = np.frombuffer(origin.encode(), np.uint8)

    def to_binary(self) -> Any:
        arguments = super().to_binary()
        arguments[0][: self._origin.size] = self._origin
        return arguments

    def encode(self, destination: Any, image: tuple[bytes, int, int], malloc: Any) -> None:
        payload, destination["width"], destination["height"] = image
        destination["mode"] = IMAGE_MODES["jpg"]
        destination["data_ptr"], storage = malloc(len(payload))
        storage[:] = np.frombuffer(payload, np.uint8)


class _Writer(DatasetWriter):
    """FFCV's writer in this process: where one of its own fails, it waits for that for ever."""

    def write(self, rows: Iterable[Row], *, count: int) -> None:
        self.num_samples = count
        self.prepare()
        try:
            self.finalize(self._allocated(rows))
        finally:
            self.metadata_sm.unlink()
            with contextlib.suppress(BufferError):  # after an error, whose traceback holds a view
                self.metadata_sm.close()

    def _allocated(self, rows: Iterable[Row]) -> list[tuple[int, int, int]]:
        allocator = MemoryAllocator(self.fname, self.data_region_start, self.page_size)
        metadata = np.frombuffer(self.metadata_sm.buf, dtype=self.metadata_type)
        with allocator:
            for number, row in enumerate(rows):
                image = (row.image, row.width, row.height)
                record, others = (
                    np.frombuffer(each, np.uint8) for each in (row.record, row.others)
                )
                values = (record, image, others)
                handle_sample(
                    values, number, self.metadata_type.names, metadata, allocator, self.fields
                )
        allocations: list[tuple[int, int, int]] = allocator.allocations
        return allocations


def write_beton(
    path: Path, rows: Iterable[Row], *, count: int, most_bytes: int, origin: str
) -> None:
    """Write `count` rows, none of more than `most_bytes`, to the new file `path`.

    Raises OSError, as where there is no space.
    """
    page_bytes = 4 * MIN_PAGE_SIZE  # FFCV's own choice
    while page_bytes < most_bytes:
        page_bytes *= 2
    fields = {"record": BytesField(), "image": _StoredImage(origin), "others": BytesField()}
    assert tuple(fields) == FIELDS
    _Writer(str(path), fields, page_size=page_bytes, num_workers=1).write(rows, count=count)
    # A write into the last free bytes of a disk ends early, and says so to nobody.
    with OpenBeton(path, count=count, origin=origin):
        pass


class OpenBeton:
    """A beton whose pages are mapped.

    `starts` has by field the byte at which each row's begins. Raises BetonError for a file that is
    not there, is none, has been cut, has another layout or number of rows, or was written from
    other shards.
    """

    def __init__(self, path: Path, *, count: int, origin: str) -> None:
        try:
            with path.open("rb") as file:
                _check_size(path, os.fstat(file.fileno()).st_size, count)
                self.pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise BetonError("not there") from None
        reader = _read(path)
        _check_origin(reader, origin)
        record, image, others = (reader.metadata[name] for name in reader.metadata.dtype.names)
        self.starts: Mapping[Field, NDArray[np.uint64]] = {
            "record": np.ascontiguousarray(record["ptr"]),
            "image": np.ascontiguousarray(image["data_ptr"]),
            "others": np.ascontiguousarray(others["ptr"]),
        }

    def __enter__(self) -> OpenBeton:
        return self

    def __exit__(self, *_: object) -> None:
        self.pages.close()


def _check_size(path: Path, size: int, count: int) -> None:
    header = np.fromfile(path, HeaderType, 1)
    if len(header) < 1:
        raise BetonError(f"{size} bytes, less than a header")
    if (version := int(header["version"][0])) != CURRENT_VERSION:
        raise BetonError(f"no file of FFCV's format {CURRENT_VERSION} (its first bytes: {version})")
    if (rows := int(header["num_samples"][0])) != count:
        raise BetonError(f"{rows:,} rows, where the shards have {count:,} samples")
    table, page_bytes = (int(header[name][0]) for name in ("alloc_table_ptr", "page_size"))
    expected = table + len(FIELDS) * count * ALLOC_TABLE_TYPE.itemsize
    # Pages are whole; the table behind them is written last, and the header that leads to it.
    if size != expected or page_bytes == 0 or table % page_bytes:
        raise BetonError(f"{size:,} bytes, which is not all that was to be written (cut short?)")


def _read(path: Path) -> Reader:
    try:
        reader = Reader(str(path), CUSTOM_FIELDS)
    except (KeyError, ValueError, IndexError) as error:
        raise BetonError("its description of itself is damaged") from error
    if tuple(reader.field_names) != FIELDS:
        raise BetonError(f"fields {', '.join(reader.field_names)}, not {', '.join(FIELDS)}")
    return reader


def _check_origin(reader: Reader, origin: str) -> None:
    stored = bytes(reader.field_descriptors["arguments"][FIELDS.index("image")]).rstrip(b"\0")
    if stored == origin.encode():
        return
    kind, wanted = stored.rpartition(b" ")[0], origin.rpartition(" ")[0]
    if kind != wanted.encode():
        raise BetonError(f"written by another program or release: not a {wanted}")
    raise BetonError("written from other shards than lie here")
