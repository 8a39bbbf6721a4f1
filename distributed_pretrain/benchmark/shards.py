"""How close the shard builder comes to the bare work on its images.

The ceiling is a loop that only decodes, resizes and encodes, with the calls of Pillow that the
builder makes. Both run over the same files, on the same number of cores, in one run.
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from pydantic import Field

from data_shards.errors import InputError
from data_shards.processes import available_cores
from data_shards.profiles import Config, parse_overrides, validate

TARGET_RATIO = 0.85
# The builder's: see data_shards.images.resize.
OVERSAMPLING = 2
ASPECT = 1.2
# Of MIMIC-CXR-JPG: with this noise and quality a file of 2,000 x 2,400 px has its 1.4 MB.
NOISE_GREY_LEVELS = 6.0
ORIGINAL_QUALITY = 90
WARM_UP_IMAGES = 4


class ShardsBenchmarkConfig(Config):
    """`images` files, `distinct_images` of them drawn and the others hard links to these.

    Many images, because the start of the builder counts: it takes seconds once, of hours.
    """

    images: int = Field(default=6000, ge=2)
    distinct_images: int = Field(default=120, ge=1)
    width_px: int = Field(default=2000, ge=64)
    longest_side_px: int = Field(default=320, ge=16)
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    workers: int = Field(default_factory=available_cores, ge=1)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ShardsBenchmark:
    """Seconds for `images` images on `workers` cores."""

    images: int
    workers: int
    bare_seconds: float
    build_seconds: float

    @property
    def ceiling_per_core(self) -> float:
        """Images per second and core of the bare loop."""
        return self.images / self.bare_seconds / self.workers

    @property
    def build_per_core(self) -> float:
        """Images per second and core of the whole build command, its start included."""
        return self.images / self.build_seconds / self.workers

    @property
    def ratio(self) -> float:
        """Build over ceiling."""
        return self.build_per_core / self.ceiling_per_core


def run(overrides: Sequence[str]) -> None:
    """Measure and print. Raises InputError for an override that does not fit."""
    values = parse_overrides(overrides)
    config = validate(ShardsBenchmarkConfig, values, where="benchmark shards")
    measured = benchmark_shards(config)
    verdict = "reached" if measured.ratio >= TARGET_RATIO else "missed"
    print(
        f"{config.images:,} JPEGs {config.width_px:,} px wide to {config.longest_side_px} px on "
        f"{config.workers} cores\n"
        f"{'':<36}{'images/s':>10}{'per core':>10}\n"
        f"{'bare decode + resize + encode':<36}"
        f"{config.images / measured.bare_seconds:>10.1f}{measured.ceiling_per_core:>10.1f}\n"
        f"{'python -m data_shards build':<36}"
        f"{config.images / measured.build_seconds:>10.1f}{measured.build_per_core:>10.1f}\n"
        f"ratio {measured.ratio:.3f} (target {TARGET_RATIO}: {verdict}; ceiling 1)"
    )


def benchmark_shards(config: ShardsBenchmarkConfig) -> ShardsBenchmark:
    """Both times. Half of the bare loop runs before the build and half after it, so that a
    machine that others use slows both alike.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = _draw_images(folder / "images", config)
        half = len(paths) // 2
        bare = _time_bare_loop(paths[:half], config)
        build = _time_build(folder, paths, config)
        bare += _time_bare_loop(paths[half:], config)
    return ShardsBenchmark(config.images, config.workers, bare, build)


def _draw_images(folder: Path, config: ShardsBenchmarkConfig) -> list[Path]:
    """Smooth shapes under noise: as hard to decode as a radiograph of the same size."""
    folder.mkdir()
    rng = np.random.default_rng(config.seed)
    size = (config.width_px, round(config.width_px * ASPECT))
    paths = [folder / f"{number:06d}.jpg" for number in range(config.images)]
    for number, path in enumerate(paths):
        if number >= config.distinct_images:
            path.hardlink_to(paths[number % config.distinct_images])
            continue
        shapes = Image.fromarray(rng.integers(0, 200, (12, 10), dtype=np.uint8))
        smooth = np.asarray(shapes.resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
        noise = NOISE_GREY_LEVELS * rng.standard_normal(smooth.shape, dtype=np.float32)
        grey = (smooth + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(grey).save(path, quality=ORIGINAL_QUALITY)
    return paths


def _time_bare_loop(paths: Sequence[Path], config: ShardsBenchmarkConfig) -> float:
    """Seconds for all `paths`, shared out evenly; the start of the processes is not counted."""
    convert = partial(
        convert_bare, longest_side_px=config.longest_side_px, jpeg_quality=config.jpeg_quality
    )
    shares = [paths[worker :: config.workers] for worker in range(config.workers)]
    with ProcessPoolExecutor(config.workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(convert, [share[:WARM_UP_IMAGES] for share in shares]))
        started = time.perf_counter()
        list(pool.map(convert, shares))
        return time.perf_counter() - started


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


def _time_build(folder: Path, paths: Sequence[Path], config: ShardsBenchmarkConfig) -> float:
    """Seconds of the whole command, from its start to its manifest."""
    table = folder / "pairs.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "patient_id", "report"))
        writer.writerows((path.name, path.stem, "No acute finding.") for path in paths)
    profile = folder / "profile.yaml"
    source = {
        "name": "csv_pairs",
        "table": str(table),
        "image_root": str(paths[0].parent),
        "columns": {"report": "report"},
        "default_view": "PA",
    }
    values = {
        "source": source,
        "output": str(folder / "shards"),
        "longest_side_px": config.longest_side_px,
        "jpeg_quality": config.jpeg_quality,
        # Small enough that the workers end at about the same time.
        "samples_per_shard": max(1, config.images // (config.workers * 20)),
        "validate_fraction": 0,
        "test_fraction": 0,
        "workers": config.workers,
    }
    profile.write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "data_shards", "build", str(profile)]
    started = time.perf_counter()
    finished = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if finished.returncode != 0:
        raise InputError(f"the build of the benchmark failed: {finished.stderr.strip()}")
    return seconds
