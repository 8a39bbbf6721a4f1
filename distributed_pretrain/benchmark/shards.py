"""How close the shard builder comes to the bare work on its images.

The ceiling is a loop that only decodes, resizes and encodes, with the calls of Pillow (of DICOMs,
pydicom) that the builder makes. Both run over the same files, on the same number of cores, in one
run: half of the bare loop before the build and half after it.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from PIL import Image
from pydantic import Field

from data_shards.errors import InputError
from data_shards.processes import available_cores
from data_shards.profiles import Config
from data_shards.synthetic_shards import synthetic_jpeg
from distributed_pretrain.benchmark import dicom_files, harness

TARGET_RATIO = 0.85
# The builder's: see data_shards.images.conversion.
OVERSAMPLING = 2
LONGEST_SIDE_PX = 320
JPEG_QUALITY = 95
ASPECT = 1.2
WARM_UP_IMAGES = 4


class Settings(Config):
    """`images` files, `distinct_images` of them drawn and the others hard links to these.

    Many images, because the start of the builder counts: it takes seconds once, of hours. `source`:
    JPEGs and a table, or RSNA's DICOMs of `dicom_side_px`.
    """

    source: Literal["csv_pairs", "rsna"] = "csv_pairs"

    images: int = Field(default=6000, ge=2)
    distinct_images: int = Field(default=120, ge=1)
    width_px: int = Field(default=2000, ge=64)
    dicom_side_px: int = Field(default=1024, ge=64)
    workers: int = Field(default_factory=available_cores, ge=1)


def run(config: Settings) -> None:
    """Measure and print."""
    is_dicom = config.source == "rsna"
    kind, width_px = ("DICOMs", config.dicom_side_px) if is_dicom else ("JPEGs", config.width_px)
    print(
        f"{config.images:,} {kind} {width_px:,} px wide to {LONGEST_SIDE_PX} px on "
        f"{config.workers} cores"
    )
    seconds = measure(config)
    table = harness.Table({"": "<36", "images/s": ">10.1f", "per core": ">10.1f"})
    for name, each in seconds.items():
        table.row(name, config.images / each, config.images / each / config.workers)
    bare, build = seconds.values()
    ratio = harness.Target("build / bare loop (ceiling 1)", bare / build, TARGET_RATIO, True)
    figures = {"config": config.model_dump(), "seconds": seconds, "ratio": bare / build}
    harness.conclude([ratio], figures)


def measure(config: Settings) -> dict[str, float]:
    """Seconds for all images: of the bare loop, and of the whole build command with its start."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = _draw_images(folder / "images", config)
        source = (
            dicom_files.source_settings(folder / "images")
            if config.source == "rsna"
            else _write_table(folder, paths)
        )
        half = len(paths) // 2
        bare = _time_bare_loop(paths[:half], config)
        profile = _write_profile(folder, source, config)
        build = harness.seconds_of(partial(_build, profile))
        bare += _time_bare_loop(paths[half:], config)
    return {"bare decode + resize + encode": bare, "python -m data_shards build": build}


def _draw_images(folder: Path, config: Settings) -> list[Path]:
    if config.source == "rsna":
        return dicom_files.draw_archive(
            folder,
            images=config.images,
            distinct_images=config.distinct_images,
            side_px=config.dicom_side_px,
        )
    folder.mkdir()
    random, height_px = np.random.default_rng(0), round(config.width_px * ASPECT)
    paths = [folder / f"{number:06d}.jpg" for number in range(config.images)]
    for number, path in enumerate(paths):
        if number < config.distinct_images:
            path.write_bytes(synthetic_jpeg(random, width=config.width_px, height=height_px))
        else:
            path.hardlink_to(paths[number % config.distinct_images])
    return paths


def _time_bare_loop(paths: Sequence[Path], config: Settings) -> float:
    """Seconds for all `paths`, shared out evenly; the start of the processes is not counted."""
    shares = [(paths[worker :: config.workers],) for worker in range(config.workers)]
    return max(harness.in_fresh_processes(_time_share, shares))


def _time_share(paths: Sequence[Path]) -> float:
    bare = dicom_files.convert_bare if paths[0].suffix == ".dcm" else convert_bare
    convert = partial(bare, longest_side_px=LONGEST_SIDE_PX, jpeg_quality=JPEG_QUALITY)
    convert(paths[:WARM_UP_IMAGES])
    return harness.seconds_of(partial(convert, paths))


def convert_bare(paths: Sequence[Path], *, longest_side_px: int, jpeg_quality: int) -> int:
    """The bytes that the converted images have together."""
    total = 0
    for path in paths:
        with Image.open(path) as image:
            scale = longest_side_px / max(image.size)
            size = (round(image.width * scale), round(image.height * scale))
            image.draft("L", (OVERSAMPLING * size[0], OVERSAMPLING * size[1]))
            grey = image.convert("L")
        shrunk = grey.resize(size, Image.Resampling.BICUBIC, reducing_gap=OVERSAMPLING)
        encoded = io.BytesIO()
        shrunk.save(encoded, "JPEG", quality=jpeg_quality)
        total += encoded.tell()
    return total


def _write_table(folder: Path, paths: Sequence[Path]) -> dict[str, Any]:
    table = folder / "pairs.csv"
    lines = (f"{path.name},{path.stem},No acute finding.\n" for path in paths)
    table.write_text("".join(["image,patient_id,report\n", *lines]))
    return {
        "name": "csv_pairs",
        "table": str(table),
        "image_root": str(paths[0].parent),
        "columns": {"report": "report"},
        "default_view": "PA",
    }


def _write_profile(folder: Path, source: dict[str, Any], config: Settings) -> Path:
    profile = folder / "profile.yaml"
    values = {
        "source": source,
        "output": str(folder / "shards"),
        "longest_side_px": LONGEST_SIDE_PX,
        "jpeg_quality": JPEG_QUALITY,
        # Small enough that the workers end at about the same time.
        "samples_per_shard": max(1, config.images // (config.workers * 20)),
        "validate_fraction": 0,
        "test_fraction": 0,
        "workers": config.workers,
    }
    profile.write_text(yaml.safe_dump(values))
    return profile


def _build(profile: Path) -> None:
    command = [sys.executable, "-m", "data_shards", "build", str(profile)]
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode != 0:
        raise InputError(f"the build of the benchmark failed: {finished.stderr.strip()}")
