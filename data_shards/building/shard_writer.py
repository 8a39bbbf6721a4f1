"""One shard: a deterministic tar in WebDataset's naming, then the index that marks it done."""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from data_shards.building.plan import ShardPlan
from data_shards.building.study_conversion import ConvertedStudy, ImagePolicy, convert_study
from data_shards.files.atomic import write_text_atomically
from data_shards.processes import Tick
from data_shards.records.manifest import DroppedSample, IndexedSample, Member, PixelSums, ShardIndex
from data_shards.records.policies import TEXT_POLICIES, select_sentences, word_count
from data_shards.records.study import Report, StudyRecord
from data_shards.sources.base import Source, StudyRef


@dataclass(frozen=True, slots=True)
class ShardContext:
    """What all shards of a build share. Unfinished files lie in `workplace`."""

    source: Source
    folder: Path
    workplace: Path
    plan_sha256: str
    policy: ImagePolicy


@dataclass(frozen=True, slots=True)
class _Written:
    """What is remembered of a sample once its bytes are in the tar."""

    record: StudyRecord
    crc32: dict[str, int]


def write_shard(context: ShardContext, plan: ShardPlan, tick: Tick) -> None:
    """Write the tar and the index of one shard into `context.folder`.

    Both appear whole or not at all, the index last. `tick` is called after each study.
    Raises InputError for bad input.
    """
    tar = context.folder / plan.tar_name
    partial = context.workplace / f"{tar.name}.partial"
    try:
        with partial.open("wb") as file:
            written, dropped, pixels = _write_samples(file, context, plan, tick)
            file.flush()
            os.fsync(file.fileno())
        with partial.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        index = ShardIndex(
            plan_sha256=context.plan_sha256,
            tar_name=tar.name,
            tar_bytes=partial.stat().st_size,
            tar_sha256=sha256,
            split=plan.split,
            samples=_indexed(written, partial),
            dropped=tuple(dropped),
            pixels=pixels,
        )
        partial.replace(tar)
    finally:
        partial.unlink(missing_ok=True)
    write_text_atomically(
        context.folder / plan.index_name,
        index.model_dump_json(indent=1),
        workplace=context.workplace,
    )


def _write_samples(
    file: BinaryIO, context: ShardContext, plan: ShardPlan, tick: Tick
) -> tuple[list[_Written], list[DroppedSample], PixelSums]:
    # Imported here because it brings in torch: seconds, which processes that write no tar save.
    from webdataset.writer import TarWriter

    written: list[_Written] = []
    dropped: list[DroppedSample] = []
    pixels = PixelSums()
    # No clock, user or umask in the headers: equal input gives equal bytes.
    with TarWriter(file, encoder=False, user="", group="", mode=0o444, mtime=0) as writer:
        for key, ref in plan.studies:
            study = _convert(context, plan, key, ref)
            if isinstance(study, DroppedSample):
                dropped.append(study)
            else:
                writer.write({"__key__": key, **study.members})
                crc32 = {name: zlib.crc32(payload) for name, payload in study.members.items()}
                written.append(_Written(study.record, crc32))
                dropped.extend(study.dropped_images)
                for image in study.images:
                    pixels += image.pixels
            tick()
    return written, dropped, pixels


def _convert(
    context: ShardContext, plan: ShardPlan, key: str, ref: StudyRef
) -> ConvertedStudy | DroppedSample:
    sample = context.source.load_study(ref)
    if isinstance(sample, DroppedSample):
        return DroppedSample(key=key, reason=sample.reason)
    return convert_study(
        sample,
        context.policy,
        key=key,
        split=plan.split,
        source=context.source.name,
        licence=context.source.licence,
    )


def _indexed(written: list[_Written], tar: Path) -> tuple[IndexedSample, ...]:
    """The index entries; offsets are read back from the tar, so that they are what it says."""
    with tarfile.open(tar, "r:") as archive:
        places = {entry.name: (entry.offset_data, entry.size) for entry in archive}
    samples = []
    for each in written:
        members = {}
        for name, crc32 in each.crc32.items():
            offset, size = places[f"{each.record.key}.{name}"]
            members[name] = Member(offset=offset, size=size, crc32=crc32)
        samples.append(
            IndexedSample(
                key=each.record.key,
                patient_id=each.record.patient_id,
                views=tuple(image.view for image in each.record.images),
                members=members,
                words=_count_words(each.record.report),
            )
        )
    return tuple(samples)


def _count_words(report: Report) -> dict[str, int]:
    return {policy: word_count(select_sentences(report, policy)) for policy in TEXT_POLICIES}
