"""Shard folders with made-up studies, in seconds: input for benchmarks and tests."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from data_shards.files.atomic import write_text_atomically
from data_shards.records.manifest import (
    MANIFEST_NAME,
    IndexedSample,
    Manifest,
    Member,
    PixelSums,
    ShardEntry,
    ShardIndex,
)
from data_shards.records.policies import TEXT_POLICIES, select_sentences, word_count
from data_shards.records.study import ImageRecord, Report, Split, StudyRecord, View

_FINDINGS = (
    "The lungs are clear.",
    "There is a small left pleural effusion.",
    "Heart size is at the upper limit of normal.",
    "No pneumothorax is seen.",
    "Patchy opacity in the right lower lobe may represent atelectasis.",
)
_IMPRESSIONS = ("No acute cardiopulmonary process.", "Possible right lower lobe pneumonia.")


def synthetic_jpeg(random: np.random.Generator, *, width: int, height: int) -> bytes:
    """A grey JPEG that costs about as much to decode as a radiograph of its size."""
    y, x = np.mgrid[0:height, 0:width]
    phase = random.uniform(0, 2 * np.pi, 2)
    smooth = 128 + 80 * np.sin(x / width * 9 + phase[0]) * np.cos(y / height * 7 + phase[1])
    pixels = (smooth + random.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def write_synthetic_shards(
    folder: Path,
    *,
    studies: Mapping[Split, int],
    studies_a_shard: int,
    views: Sequence[View | None] = ("PA",),
    longest_side_px: int = 320,
    labels: Sequence[str] = (),
    seed: int = 0,
) -> None:
    """Write shards of `studies` by split, a study with one image per entry of `views`.

    Each of `labels` is present, absent, uncertain or not mentioned, at random.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    entries = [
        _write_shard(
            folder,
            f"{split}-{number:06d}",
            [
                _study(f"{split}{i:06d}", split, views, random, longest_side_px, labels)
                for i in range(start, min(start + studies_a_shard, count))
            ],
        )
        for split, count in studies.items()
        for number, start in enumerate(range(0, count, studies_a_shard))
    ]
    manifest = Manifest(
        source="synthetic",
        licence="none",
        seed=seed,
        longest_side_px=longest_side_px,
        pixel_mean=0.5,
        pixel_std=0.22,
        samples_by_split=dict(studies),
        patients_by_split=dict(studies),
        images_by_split_and_view={
            split: {str(view): count * views.count(view) for view in views}
            for split, count in studies.items()
        },
        shards=tuple(entries),
        dropped=(),
        dropped_by_reason={},
    )
    write_text_atomically(folder / MANIFEST_NAME, manifest.model_dump_json(indent=1))


def _study(
    key: str,
    split: Split,
    views: Sequence[View | None],
    random: np.random.Generator,
    longest_side_px: int,
    labels: Sequence[str],
) -> tuple[StudyRecord, dict[str, bytes]]:
    images, members = [], {}
    for number, view in enumerate(views):
        sides = (longest_side_px, int(longest_side_px * random.uniform(0.8, 1)))
        width, height = sides if random.random() < 0.5 else sides[::-1]
        member = f"image{number}.jpg"
        members[member] = synthetic_jpeg(random, width=width, height=height)
        images.append(ImageRecord(f"{key}-{number}", view, member, width, height, width, height))
    findings = tuple(random.permutation(_FINDINGS)[: random.integers(1, len(_FINDINGS))].tolist())
    impression = (str(random.choice(_IMPRESSIONS)),)
    sentences = {"findings": findings, "impression": impression}
    sections = {name: " ".join(each) for name, each in sentences.items()}
    record = StudyRecord(
        key=key,
        patient_id=f"patient-{key}",
        study_id=key,
        split=split,
        source="synthetic",
        licence="none",
        images=tuple(images),
        report=Report(raw=" ".join(sections.values()), sections=sections, sentences=sentences),
        labels=_labels(labels, random),
        boxes=(),
        masks=(),
    )
    members["json"] = json.dumps(record.to_json()).encode()
    return record, members


def _labels(names: Sequence[str], random: np.random.Generator) -> dict[str, float | None]:
    values = (1.0, 0.0, -1.0, None)
    return {name: values[random.integers(len(values))] for name in names}


def _write_shard(
    folder: Path, name: str, studies: Sequence[tuple[StudyRecord, dict[str, bytes]]]
) -> ShardEntry:
    tar = folder / f"{name}.tar"
    with tarfile.open(tar, "w") as archive:
        for record, members in studies:
            for member, payload in members.items():
                header = tarfile.TarInfo(f"{record.key}.{member}")
                header.size = len(payload)
                archive.addfile(header, io.BytesIO(payload))
    with tarfile.open(tar) as archive:
        offsets = {header.name: header.offset_data for header in archive}
    index = ShardIndex(
        plan_sha256="",
        tar_name=tar.name,
        tar_bytes=tar.stat().st_size,
        tar_sha256=sha256(tar.read_bytes()).hexdigest(),
        split=studies[0][0].split,
        samples=tuple(_indexed(record, members, offsets) for record, members in studies),
        dropped=(),
        pixels=PixelSums(),
    )
    path = folder / f"{name}.index.json"
    write_text_atomically(path, index.model_dump_json(indent=1))
    return ShardEntry(
        tar_name=tar.name,
        index_name=path.name,
        split=index.split,
        samples=len(studies),
        bytes=index.tar_bytes,
        sha256=index.tar_sha256,
        index_sha256=sha256(path.read_bytes()).hexdigest(),
    )


def _indexed(
    record: StudyRecord, members: dict[str, bytes], offsets: dict[str, int]
) -> IndexedSample:
    return IndexedSample(
        key=record.key,
        patient_id=record.patient_id,
        views=tuple(image.view for image in record.images),
        members={
            member: Member(
                offset=offsets[f"{record.key}.{member}"],
                size=len(payload),
                crc32=zlib.crc32(payload),
            )
            for member, payload in members.items()
        },
        words={
            policy: word_count(select_sentences(record.report, policy)) for policy in TEXT_POLICIES
        },
    )
