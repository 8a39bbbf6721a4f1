"""How long a large set takes to open, a stopped run to find its place, and if reading takes memory.

The set is simulated: indices and a manifest as `build` writes them, beside sparse tars that hold
nothing. What is timed is all that a run does with them before its first read: both documents of
each shard parsed, held against each other and against the sizes of the tars; and the order of an
epoch, put together again at its middle. Then a sample of each shard is asked for, twice: what the
first round comes to hold is bounded, and the second must add nothing. Seconds of the processor
stand beside those of the wall, which others on the machine make longer.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from contextlib import suppress
from functools import partial
from itertools import accumulate
from pathlib import Path

from pydantic import Field

from data_shards.profiles import Config
from data_shards.records.indexed_samples import IndexedSample, IndexedSamples, Member
from data_shards.records.manifest import (
    MANIFEST_NAME,
    Manifest,
    PixelSums,
    ShardEntry,
    ShardIndex,
    index_name,
)
from distributed_pretrain.benchmark import harness
from distributed_pretrain.data.order import GlobalOrder
from distributed_pretrain.data.quarantine import BadSampleError
from distributed_pretrain.data.shards import ShardSplit

OPENING_SECONDS = 2.0
RESUMING_SECONDS = 1.0
GROWTH_MIB = 8.0
_IMAGE_BYTES, _RECORD_BYTES = 30_000, 3_000
# One in three has no findings, as about in MIMIC-CXR.
_WORDS: tuple[dict[str, tuple[int, ...]], ...] = (
    {"findings": (7, 9, 4, 12), "impression": (5, 6)},
    {"findings": (8, 5, 11), "impression": (3,)},
    {"impression": (5, 14)},
)


class Settings(Config):
    """400,000 studies in 2,000 shards are MIMIC-CXR's images, each a study."""

    shards: int = Field(default=2000, ge=1)
    studies_a_shard: int = Field(default=200, ge=1)
    global_batch: int = Field(default=512, ge=2)


def run(config: Settings) -> None:
    """Measure and print."""
    studies = config.shards * config.studies_a_shard
    print(f"{studies:,} studies in {config.shards:,} shards, simulated")
    with tempfile.TemporaryDirectory() as name:
        write_simulated_set(Path(name), config)
        [figures] = harness.in_fresh_processes(_measure, [(Path(name), config)])
    table = harness.Table({"": "<36", "seconds": ">10.2f"})
    table.row("open", figures["open_seconds"])
    table.row("  of the processor", figures["open_processor_seconds"])
    table.row("find the middle of an epoch", figures["resume_seconds"])
    print(
        f"memory: {figures['bytes_a_study']:,.0f} bytes a study; after a sample of each shard "
        f"{figures['first_round_mib']:.1f} MiB more, after another {figures['growth_mib']:.1f}"
    )
    targets = [
        harness.Target("seconds to open", figures["open_seconds"], OPENING_SECONDS, False),
        harness.Target("seconds to resume", figures["resume_seconds"], RESUMING_SECONDS, False),
        harness.Target("MiB more by reading on", figures["growth_mib"], GROWTH_MIB, False),
    ]
    harness.conclude(targets, {"config": config.model_dump(), **figures})


def write_simulated_set(folder: Path, config: Settings) -> None:
    """A training split whose documents are sound, and whose tars are holes of the right size."""
    entries = []
    each = 2 * 512 + _IMAGE_BYTES + _RECORD_BYTES
    pixels = PixelSums(count=4, total=400, total_of_squares=50_000)
    for number in range(config.shards):
        tar = f"train-{number:06d}.tar"
        samples = IndexedSamples.of(
            IndexedSample(
                key=f"1{number:07d}_5{place:07d}",
                patient_id=f"1{number:04d}{place // 3:03d}",
                views=("PA",),
                members={
                    "image0.jpg": Member(offset=512 + place * each, size=_IMAGE_BYTES, crc32=place),
                    "json": Member(
                        offset=1024 + _IMAGE_BYTES + place * each, size=_RECORD_BYTES, crc32=place
                    ),
                },
                words=_WORDS[place % 3],
            )
            for place in range(config.studies_a_shard)
        )
        index = ShardIndex(
            plan_sha256="",
            tar_name=tar,
            tar_bytes=config.studies_a_shard * each + 1024,
            tar_sha256="0" * 64,
            split="train",
            samples=samples,
            dropped=(),
            pixels=pixels,
        )
        content = index.model_dump_json().encode()
        (folder / index_name(tar)).write_bytes(content)
        with (folder / tar).open("wb") as file:
            file.truncate(index.tar_bytes)
        entries.append(
            ShardEntry(
                tar_name=tar,
                index_name=index_name(tar),
                split="train",
                samples=len(samples),
                bytes=index.tar_bytes,
                sha256=index.tar_sha256,
                index_sha256=hashlib.sha256(content).hexdigest(),
            )
        )
    total = config.shards * config.studies_a_shard
    mean, std = sum([pixels] * config.shards, PixelSums()).mean_and_std()
    manifest = Manifest(
        source="simulated",
        licence="none",
        seed=0,
        longest_side_px=320,
        pixel_mean=mean,
        pixel_std=std,
        samples_by_split={"train": total},
        patients_by_split={"train": config.shards * -(-config.studies_a_shard // 3)},
        images_by_split_and_view={"train": {"PA": total}},
        shards=tuple(entries),
        dropped=(),
        dropped_by_reason={},
    )
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1))


def _measure(folder: Path, config: Settings) -> dict[str, float]:
    opened: list[ShardSplit] = []

    def open_split() -> None:
        opened.append(ShardSplit(folder, "train", "lovt"))

    seconds: list[float] = []
    processor = time.process_time()
    held = harness.peak_bytes_above_start(lambda: seconds.append(harness.seconds_of(open_split)))
    processor = time.process_time() - processor
    split = opened[0]
    resume = harness.seconds_of(partial(_middle, split, config.global_batch))
    return {
        "open_seconds": seconds[0],
        "open_processor_seconds": processor,
        "resume_seconds": resume,
        "bytes_a_study": held / len(split),
        "first_round_mib": _taken_by_reading(split) / 2**20,
        "growth_mib": _taken_by_reading(split) / 2**20,
    }


def _taken_by_reading(split: ShardSplit) -> int:
    """Bytes that a sample of each shard takes, all in turn: its index, and the tar opened."""

    def read() -> None:
        for position in accumulate(split.shard_sizes[:-1], initial=0):
            with suppress(BadSampleError):  # in these tars nothing is
                split.read_member(position, "json")

    return harness.peak_bytes_above_start(read)


def _middle(split: ShardSplit, global_batch: int) -> int:
    """The first position of the step in the middle of the second epoch."""
    order = GlobalOrder(split.shard_sizes, global_batch, seed=0, shuffle_buffer_shards=16)
    consumed = (order.steps_per_epoch + order.steps_per_epoch // 2) * global_batch
    epoch, step = order.epoch_and_step(consumed)
    return int(order.epoch_positions(epoch)[step * global_batch])
