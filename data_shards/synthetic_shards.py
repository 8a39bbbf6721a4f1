"""Shard folders with made-up studies, in seconds: input for benchmarks and tests."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data_shards.building.shard_writer import write_studies
from data_shards.building.study_conversion import ConvertedStudy
from data_shards.building.summary import summarise
from data_shards.files.atomic import write_text_atomically
from data_shards.records.manifest import MANIFEST_NAME
from data_shards.records.study import Box, ImageRecord, Report, Split, StudyRecord, View

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
    boxes: Sequence[str] = (),
    sentences: int | None = None,
    seed: int = 0,
) -> None:
    """Write shards of `studies` by split, a study with one image per entry of `views`.

    Findings are a few sentences, or so many `sentences`, the same ones again. Each of `labels` is
    present, absent, uncertain or not mentioned, at random; each of `boxes` lies somewhere in the
    first image.
    """
    random = np.random.default_rng(seed)
    # Of its own: with boxes or without, the rest is the same.
    places = np.random.default_rng([seed, 1])

    def study(key: str, split: Split) -> ConvertedStudy:
        images: list[ImageRecord] = []
        members: dict[str, bytes] = {}
        for number, view in enumerate(views):
            sides = (longest_side_px, int(longest_side_px * random.uniform(0.8, 1)))
            size = sides if random.random() < 0.5 else sides[::-1]
            member = f"image{number}.jpg"
            members[member] = synthetic_jpeg(random, width=size[0], height=size[1])
            images.append(ImageRecord(f"{key}-{number}", view, member, *size, *size))
        if sentences is None:
            findings = random.permutation(_FINDINGS)[: random.integers(1, len(_FINDINGS))].tolist()
        else:
            findings = random.choice(_FINDINGS, sentences).tolist()
        impression = (str(random.choice(_IMPRESSIONS)),)
        by_section = {"findings": tuple(findings), "impression": impression}
        sections = {name: " ".join(each) for name, each in by_section.items()}
        drawn = []
        for name in boxes:
            x, y, width, height = places.uniform(0.1, 0.45, 4)
            across, down = images[0].width, images[0].height
            drawn.append(Box(0, x * across, y * down, width * across, height * down, name))
        record = StudyRecord(
            key=key,
            patient_id=f"patient-{key}",
            study_id=key,
            split=split,
            source="synthetic",
            licence="none",
            images=tuple(images),
            report=Report(" ".join(sections.values()), sections, by_section),
            labels={name: (1.0, 0.0, -1.0, None)[random.integers(4)] for name in labels},
            boxes=tuple(drawn),
            masks=(),
        )
        return ConvertedStudy(record, {**members, "json": record.to_json()})

    folder.mkdir(parents=True, exist_ok=True)
    indices = [
        write_studies(
            folder / f"{split}-{number:06d}.tar",
            (
                study(f"{split}{i:06d}", split)
                for i in range(start, min(start + studies_a_shard, count))
            ),
            split=split,
            plan_sha256="",
            workplace=folder,
        )
        for split, count in studies.items()
        for number, start in enumerate(range(0, count, studies_a_shard))
    ]
    manifest = summarise(
        folder,
        indices,
        source="synthetic",
        licence="none",
        seed=seed,
        longest_side_px=longest_side_px,
    )
    write_text_atomically(folder / MANIFEST_NAME, manifest.model_dump_json(indent=1))
