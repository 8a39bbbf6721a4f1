"""Where the members of a split's samples lie in its `.beton`, FFCV's file: a row a sample.

<folder>/train.beton    beside the tars whose members it holds, byte for byte

Rows are the samples of the split's indices, in order. Of each, `record` holds the JSON, `image` the
JPEG of its first frontal image (or its first), for FFCV's own decoders, and `others` all other
members, one after another as the index names them. A zero byte ends `record` and `others`: FFCV's
`JSONField.unpack` looks for it, and its writer cannot write nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Literal

from data_shards.records.indexed_samples import IndexedSample
from data_shards.records.manifest import ShardEntry
from data_shards.records.study import FRONTAL_VIEWS, Split

Field = Literal["record", "image", "others"]
FIELDS: tuple[Field, ...] = ("record", "image", "others")
END = b"\0"
# The command that writes one, up to the folder.
WRITE = ("python", "-m", "data_shards", "beton")
# Of this layout. What is written into the file begins with it.
_KIND = "radalign beton 1"


def beton_name(split: Split) -> str:
    """The file name of a split's beton."""
    return f"{split}.beton"


def origin_of(entries: Iterable[ShardEntry]) -> str:
    """What a beton says of the shards that it was written from: others, or others' order, differ.

    An index has the hash of its tar.
    """
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(entry.index_sha256.encode())
    return f"{_KIND} {digest.hexdigest()}"


def shown_image(sample: IndexedSample) -> str:
    """The member that is the row's `image`."""
    frontal = (number for number, view in enumerate(sample.views) if view in FRONTAL_VIEWS)
    return f"image{next(frontal, 0)}.jpg"


def others(sample: IndexedSample) -> Iterator[str]:
    """The members in `others`, in order."""
    elsewhere = ("json", shown_image(sample))
    return (name for name in sample.members if name not in elsewhere)


def place_of(sample: IndexedSample, name: str) -> tuple[Field, int]:
    """The field that holds the member `name` of a sample, and at which byte it begins there."""
    if name == "json":
        return "record", 0
    if name == shown_image(sample):
        return "image", 0
    at = 0
    for each in others(sample):
        if each == name:
            break
        at += sample.members[each].size
    return "others", at
