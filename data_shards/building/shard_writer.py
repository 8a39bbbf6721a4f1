"""One shard: a deterministic tar in WebDataset's naming, then the index that marks it done."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from data_shards.building.plan import ShardPlan
from data_shards.building.settings import ShardsConfig
from data_shards.building.study_conversion import ConvertedStudy, convert_study
from data_shards.files.atomic import made_whole, write_text_atomically
from data_shards.images.content import look_at
from data_shards.processes import Tick
from data_shards.records.indexed_samples import IndexedSample, IndexedSamples, Member
from data_shards.records.manifest import (
    DroppedSample,
    NotedImage,
    PixelSums,
    ShardIndex,
    file_sha256,
    index_name,
)
from data_shards.records.policies import words_of_sentences
from data_shards.records.study import Split, StudyRecord
from data_shards.sources.base import Source

# By member: its CRC-32.
_Checksums = dict[str, int]


@dataclass(frozen=True, slots=True)
class ShardContext:
    """What all shards of a build share. Unfinished files lie in `workplace`."""

    config: ShardsConfig
    source: Source
    plan_sha256: str
    workplace: Path


def write_shard(context: ShardContext, plan: ShardPlan, tick: Tick) -> None:
    """Convert the studies of `plan` and write them. Raises InputError for bad input."""

    def converted() -> Iterator[ConvertedStudy | DroppedSample]:
        for key, ref in plan.studies:
            sample = context.source.load_study(ref)
            if isinstance(sample, str):
                yield DroppedSample(key=key, reason=sample)
            else:
                study = convert_study(sample, context.config, key=key, split=plan.split)
                yield from (study,) if isinstance(study, ConvertedStudy) else study
            tick()

    write_studies(
        context.config.output / plan.tar_name,
        converted(),
        split=plan.split,
        plan_sha256=context.plan_sha256,
        workplace=context.workplace,
    )


def write_studies(
    tar: Path,
    studies: Iterable[ConvertedStudy | DroppedSample],
    *,
    split: Split,
    plan_sha256: str,
    workplace: Path,
) -> ShardIndex:
    """The index of `studies`, written with their tar.

    Both files appear whole or not at all, the index last; they are unfinished in `workplace`.
    """
    with made_whole(tar, workplace=workplace) as unfinished:
        with unfinished.open("xb") as file:
            written, dropped, pixels, noted = _write_samples(file, studies)
        index = ShardIndex(
            plan_sha256=plan_sha256,
            tar_name=tar.name,
            tar_bytes=unfinished.stat().st_size,
            tar_sha256=file_sha256(unfinished),
            split=split,
            samples=_indexed(written, unfinished),
            dropped=tuple(dropped),
            pixels=pixels,
            noted=tuple(noted),
        )
    path = tar.with_name(index_name(tar.name))
    write_text_atomically(path, index.model_dump_json(), workplace=workplace)
    return index


def _write_samples(
    file: BinaryIO, studies: Iterable[ConvertedStudy | DroppedSample]
) -> tuple[list[tuple[StudyRecord, _Checksums]], list[DroppedSample], PixelSums, list[NotedImage]]:
    # Imported here because it brings in torch: seconds, which processes that write no tar save.
    from webdataset.writer import TarWriter

    written: list[tuple[StudyRecord, _Checksums]] = []
    dropped: list[DroppedSample] = []
    pixels = PixelSums()
    noted: list[NotedImage] = []
    # No clock, user or umask in the headers: equal input gives equal bytes.
    with TarWriter(file, encoder=False, user="", group="", mode=0o444, mtime=0) as writer:
        for study in studies:
            if isinstance(study, DroppedSample):
                dropped.append(study)
                continue
            writer.write({"__key__": study.record.key, **study.members})
            checksums = {name: zlib.crc32(payload) for name, payload in study.members.items()}
            written.append((study.record, checksums))
            dropped.extend(study.dropped_images)
            notes = list(study.notes)
            for image in study.record.images:
                content = look_at(study.members[image.member])
                pixels += content.sums
                notes += [(image.member, note) for note in content.notes]
            noted += [
                NotedImage(key=f"{study.record.key}.{member}", kind=note.kind, detail=note.detail)
                for member, note in notes
            ]
    return written, dropped, pixels, noted


def _indexed(written: Iterable[tuple[StudyRecord, _Checksums]], tar: Path) -> IndexedSamples:
    """The index entries; offsets are read back from the tar, so that they are what it says."""
    with tarfile.open(tar, "r:") as archive:
        places = {each.name: {"offset": each.offset_data, "size": each.size} for each in archive}
    return IndexedSamples.of(
        IndexedSample(
            key=record.key,
            patient_id=record.patient_id,
            views=tuple(image.view for image in record.images),
            members={
                name: Member(**places[f"{record.key}.{name}"], crc32=crc32)
                for name, crc32 in checksums.items()
            },
            words=words_of_sentences(record.report),
        )
        for record, checksums in written
    )
