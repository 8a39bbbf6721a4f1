"""What the index of a shard says of each sample: whose it is, and where its members lie.

A set has hundreds of thousands of them, which every process opens: they are dataclasses of slots,
which are read in half of the time and a third of the memory of pydantic's own models.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, BinaryIO, TypeGuard

from pydantic import Field

from data_shards.records.documents import DOCUMENT
from data_shards.records.fields import Count, Crc32, FileName, Name
from data_shards.records.policies import TextPolicy, are_words_of, selected_words
from data_shards.records.study import Split, StudyRecord, View


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside a tar: payload offset and size in bytes, CRC-32 of the payload."""

    __pydantic_config__ = DOCUMENT

    offset: Count
    size: Count
    crc32: Crc32

    def read(self, tar: BinaryIO, *, tar_bytes: int) -> bytes | None:
        """The payload out of a tar of `tar_bytes`, or None when its checksum is another."""
        if self.offset + self.size > tar_bytes:
            return None
        tar.seek(self.offset)
        payload = tar.read(self.size)
        return payload if zlib.crc32(payload) == self.crc32 else None


@dataclass(frozen=True, slots=True)
class IndexedSample:
    """One sample of a shard.

    `words` are those of each sentence, by section. Up to schema 1 they were those that a text
    policy keeps, by the policies of that release.
    """

    __pydantic_config__ = DOCUMENT

    key: FileName
    patient_id: Name
    views: tuple[View | None, ...]
    members: dict[FileName, Member]
    words: Annotated[
        dict[str, tuple[Count, ...]] | dict[str, Count], Field(union_mode="left_to_right")
    ]

    def words_under(self, policy: TextPolicy) -> int | None:
        """The words that `policy` keeps; None where only the sample's record can tell."""
        words = self.words
        if _are_of_sentences(words):
            return selected_words(words, policy)
        known = words.get(policy)
        return known if isinstance(known, int) else None

    def words_of_sentences(self) -> dict[str, tuple[int, ...]]:
        """The words of each sentence by section; nothing up to schema 1."""
        return self.words if _are_of_sentences(self.words) else {}

    def contradictions(self, record: StudyRecord, split: Split) -> Iterator[str]:
        """Where this entry of the index of a shard of `split` and the sample's record disagree."""
        views = tuple([image.view for image in record.images])
        ours = (self.key, self.patient_id, split, self.views)
        theirs = (record.key, record.patient_id, record.split, views)
        if ours != theirs:  # a loader asks for every sample
            names = ("key", "patient", "split", "views")
            for what, here, there in zip(names, ours, theirs, strict=True):
                if here != there:
                    yield f"{what} {here!r} in the index, {there!r} in the record"
        words = self.words_of_sentences()
        if words and not are_words_of(words, record.report):
            yield "the words of the index are not those of the record's sentences"


def _are_of_sentences(
    words: dict[str, tuple[int, ...]] | dict[str, int],
) -> TypeGuard[dict[str, tuple[int, ...]]]:
    # The others are of the same type.
    return isinstance(next(iter(words.values()), None), tuple)
