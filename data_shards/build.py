"""A source turned into a folder of shards: planned, written by all cores, then summed up.

A rerun goes on where the last run stopped: a shard whose index is of the same plan and whose
tar has the size it should have is not touched again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from data_shards.config import ShardsConfig
from data_shards.disk_space import refuse_full_disk
from data_shards.parallel import map_in_processes, start_server
from data_shards.plan import BuildPlan, ShardPlan, plan_build
from data_shards.progress import Progress
from data_shards.records.errors import InputError
from data_shards.records.manifest import (
    MANIFEST_NAME,
    Manifest,
    PixelSums,
    ShardEntry,
    ShardIndex,
    read_shard_index,
    write_text_atomically,
)
from data_shards.records.study import SPLITS, Split
from data_shards.shard_writer import ShardContext, write_shard
from data_shards.sources.base import Source
from data_shards.sources.catalog import open_source
from data_shards.splits import refuse_empty_splits
from data_shards.study_conversion import ImagePolicy

# Importing webdataset brings in torch: seconds, spent once for all workers while the
# studies are being listed.
WORKER_MODULES = ("webdataset.writer", "data_shards.shard_writer")


def build_shards(config: ShardsConfig) -> Manifest:
    """The manifest of the finished shard folder `config.output`.

    The bytes written depend on the source and the config, not on the number of workers nor
    on how often the build was stopped. Raises InputError for bad input; finished shards stay,
    half-written files do not.
    """
    if config.worker_count > 1:
        start_server(preload=WORKER_MODULES)
    source = open_source(config.source, workers=config.worker_count)
    studies = source.list_studies()
    plan = plan_build(studies, config, fingerprint=source.fingerprint())
    folder = config.output
    with _folder_for_us(folder):
        _refuse_other_plans(folder, plan)
        _remove_partial_files(folder)
        todo = [shard for shard in plan.shards if not _is_done(folder, shard)]
        if todo:
            (folder / MANIFEST_NAME).unlink(missing_ok=True)
        try:
            with refuse_full_disk(folder, what="shards", option="output"):
                _write_shards(todo, plan, source, config)
                manifest = _summarise(plan, source, config)
                for name, text in source.side_reports().items():
                    write_text_atomically(folder / name, text)
                write_text_atomically(folder / MANIFEST_NAME, manifest.model_dump_json(indent=1))
        finally:
            # Of workers that were killed.
            _remove_partial_files(folder)
    return manifest


def _write_shards(
    todo: Sequence[ShardPlan], plan: BuildPlan, source: Source, config: ShardsConfig
) -> None:
    policy = ImagePolicy(config.longest_side_px, config.jpeg_quality, config.bad_images)
    context = ShardContext(source, config.output, plan.sha256, policy)
    studies = sum(len(shard.studies) for shard in todo)
    with Progress("build", total=studies, unit="studies") as progress:
        map_in_processes(write_shard, context, todo, workers=config.worker_count, progress=progress)


def _is_done(folder: Path, shard: ShardPlan) -> bool:
    tar = folder / shard.tar_name
    index = folder / shard.index_name
    if not (tar.is_file() and index.is_file()):
        return False
    return tar.stat().st_size == read_shard_index(index).tar_bytes


def _refuse_other_plans(folder: Path, plan: BuildPlan) -> None:
    for path in sorted(folder.glob("*.index.json")):
        if read_shard_index(path).plan_sha256 != plan.sha256:
            raise InputError(
                f"{folder}: holds shards of another source, seed or setting ({path.name}), where "
                "an edited table or another release counts as another: pass another output=..., "
                "or delete that folder"
            )


def _remove_partial_files(folder: Path) -> None:
    for path in folder.glob("*.partial"):
        path.unlink(missing_ok=True)


@contextmanager
def _folder_for_us(folder: Path) -> Iterator[None]:
    """Make `folder` and keep other builds out of it; an empty one goes again at the end."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot hold the shards ({error.strerror}): pass another output=..."
        ) from error
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)
        # Not empty: the usual case.
        with suppress(OSError):
            folder.rmdir()


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            f"{folder}: another build is writing here: wait for it, or pass another output=..."
        ) from error
    except OSError:
        # A network file system without locks: nobody is kept out.
        return


def _summarise(plan: BuildPlan, source: Source, config: ShardsConfig) -> Manifest:
    """The manifest of finished shards, all read from their indices."""
    indices = [read_shard_index(config.output / shard.index_name) for shard in plan.shards]
    dropped = [*source.list_dropped_images(), *(each for i in indices for each in i.dropped)]
    dropped.sort(key=lambda each: (each.key, each.reason))
    reasons = Counter(each.reason for each in dropped)
    filled = [index.split for index in indices if index.samples]
    why = ", ".join(f"{count} x {reason}" for reason, count in sorted(reasons.items()))
    refuse_empty_splits(
        {shard.split for shard in plan.shards}, filled, of=f"samples left (dropped: {why})"
    )
    pixels = sum((index.pixels for index in indices if index.split == "train"), PixelSums())
    mean, std = pixels.mean_and_std()
    return Manifest(
        source=source.name,
        licence=source.licence,
        seed=config.seed,
        longest_side_px=config.longest_side_px,
        pixel_mean=mean,
        pixel_std=std,
        samples_by_split={s: sum(len(i.samples) for i in _of(s, indices)) for s in SPLITS},
        patients_by_split={
            s: len({sample.patient_id for i in _of(s, indices) for sample in i.samples})
            for s in SPLITS
        },
        images_by_split_and_view={s: _count_views(_of(s, indices)) for s in SPLITS},
        # A shard whose studies were all dropped is nothing to train on.
        shards=tuple(_entry(config.output, index) for index in indices if index.samples),
        dropped=tuple(dropped),
        dropped_by_reason=dict(sorted(reasons.items())),
    )


def _of(split: Split, indices: Sequence[ShardIndex]) -> list[ShardIndex]:
    return [index for index in indices if index.split == split]


def _count_views(indices: Sequence[ShardIndex]) -> dict[str, int]:
    views = Counter(
        view or "unknown" for index in indices for sample in index.samples for view in sample.views
    )
    return dict(sorted(views.items()))


def _entry(folder: Path, index: ShardIndex) -> ShardEntry:
    index_name = index.tar_name.removesuffix(".tar") + ".index.json"
    return ShardEntry(
        tar_name=index.tar_name,
        index_name=index_name,
        split=index.split,
        samples=len(index.samples),
        bytes=index.tar_bytes,
        sha256=index.tar_sha256,
        index_sha256=hashlib.sha256((folder / index_name).read_bytes()).hexdigest(),
    )
