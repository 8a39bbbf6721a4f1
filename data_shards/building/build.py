"""A source turned into a folder of shards: planned, written by all cores, then summed up.

A rerun goes on where the last run stopped: a shard whose index is of the same plan and whose
tar has the size it should have is not touched again. Parts of a build (`part=3/16`) make the same
plan each, and whichever is the last to be done sums up.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_shards.building.output_folder import (
    part_workplace,
    remove_partial_files,
    remove_parts,
    whole_folder,
)
from data_shards.building.plan import BuildPlan, ShardPlan, plan_build
from data_shards.building.settings import ShardsConfig
from data_shards.building.shard_writer import ShardContext, write_shard
from data_shards.building.splits import refuse_empty_splits
from data_shards.building.study_conversion import ImagePolicy
from data_shards.errors import InputError
from data_shards.files.atomic import write_text_atomically
from data_shards.files.disk_space import refuse_full_disk
from data_shards.processes import Progress, map_in_processes, start_server
from data_shards.records.manifest import (
    MANIFEST_NAME,
    Manifest,
    PixelSums,
    ShardEntry,
    ShardIndex,
    read_manifest,
    read_shard_index,
)
from data_shards.records.study import SPLITS, Split
from data_shards.sources.base import Source
from data_shards.sources.catalog import open_source

# Importing webdataset brings in torch: seconds, spent once for all workers while the
# studies are being listed.
WORKER_MODULES = ("webdataset.writer", "data_shards.building.shard_writer")


@dataclass(frozen=True, slots=True)
class BuiltPart:
    """How a build stands when one of its parts is done: a manifest once no shard is missing."""

    planned: int
    missing: int
    manifest: Manifest | None


def build(config: ShardsConfig) -> str:
    """Build the whole or the part that `config` asks for; what came of it, in lines."""
    if config.part is None:
        return _described(build_shards(config), config.output)
    built = build_part(config)
    if built.manifest is None:
        return (
            f"part {config.part} done: {built.missing:,} of {built.planned:,} shards are still to "
            "be written by other parts; the last one writes the manifest"
        )
    return _described(built.manifest, config.output)


def build_shards(config: ShardsConfig) -> Manifest:
    """The manifest of the finished shard folder `config.output`.

    The bytes written depend on the source and the config, not on the number of workers nor
    on how often the build was stopped. Raises InputError for bad input; finished shards stay,
    half-written files do not.
    """
    assert config.part is None, "a part is built by build_part"
    source, plan = _open_and_plan(config)
    folder = config.output
    with whole_folder(folder):
        _refuse_other_plans(folder, plan)
        remove_partial_files(folder)
        remove_parts(folder)
        build = _Build(config, source, plan, workplace=folder)
        try:
            with refuse_full_disk(folder, what="shards", option="output"):
                build.write(plan.shards)
                return build.sum_up()
        finally:
            # Of workers that were killed.
            remove_partial_files(folder)


def build_part(config: ShardsConfig) -> BuiltPart:
    """How the build into `config.output` stands once the shards of `config.part` are written.

    Parts run side by side on any machines that share the folder. Together they give the bytes
    of a whole build; one that finds no shard missing writes the manifest.
    """
    part = config.which_part
    assert part is not None, "a whole build is build_shards"
    source, plan = _open_and_plan(config)
    folder = config.output
    with part_workplace(folder, part) as workplace:
        _refuse_other_plans(folder, plan)
        remove_partial_files(folder)
        build = _Build(config, source, plan, workplace)
        with refuse_full_disk(folder, what="shards", option="output"):
            wrote = build.write(plan.of_part(part))
            missing = _missing(folder, plan)
            if missing:
                return BuiltPart(len(plan.shards), missing, manifest=None)
            if not wrote and (folder / MANIFEST_NAME).is_file():
                return BuiltPart(len(plan.shards), 0, read_manifest(folder))
            # Parts that started together found an empty folder, whatever their settings.
            _refuse_other_plans(folder, plan)
            return BuiltPart(len(plan.shards), 0, build.sum_up())


def _open_and_plan(config: ShardsConfig) -> tuple[Source, BuildPlan]:
    if config.worker_count > 1:
        start_server(preload=WORKER_MODULES)
    source = open_source(config.source, workers=config.worker_count)
    studies = source.list_studies()
    return source, plan_build(studies, config, fingerprint=source.fingerprint())


@dataclass(frozen=True, slots=True)
class _Build:
    """A plan being carried out, with unfinished files in `workplace`."""

    config: ShardsConfig
    source: Source
    plan: BuildPlan
    workplace: Path

    def write(self, shards: Sequence[ShardPlan]) -> bool:
        """Write those of `shards` that are not done; whether there were any."""
        config = self.config
        todo = [shard for shard in shards if not _is_done(config.output, shard)]
        if todo:
            (config.output / MANIFEST_NAME).unlink(missing_ok=True)
        policy = ImagePolicy(config.longest_side_px, config.jpeg_quality, config.bad_images)
        context = ShardContext(self.source, config.output, self.workplace, self.plan.sha256, policy)
        studies = sum(len(shard.studies) for shard in todo)
        with Progress("build", total=studies, unit="studies") as progress:
            map_in_processes(
                write_shard, context, todo, workers=config.worker_count, progress=progress
            )
        return bool(todo)

    def sum_up(self) -> Manifest:
        """Write the side reports and, last, the manifest of the finished shards."""
        manifest = _summarise(self.plan, self.source, self.config)
        texts = {**self.source.side_reports(), MANIFEST_NAME: manifest.model_dump_json(indent=1)}
        for name, text in texts.items():
            write_text_atomically(self.config.output / name, text, workplace=self.workplace)
        return manifest


def _missing(folder: Path, plan: BuildPlan) -> int:
    """How many shards of `plan` are still to be written."""
    # One listing rather than a look at each name: it is cheap, and a network file system may
    # remember for a while that a name was not there.
    names = {path.name for path in folder.iterdir()}
    absent = sum(not {each.tar_name, each.index_name} <= names for each in plan.shards)
    return absent or sum(not _is_done(folder, shard) for shard in plan.shards)


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


def _described(manifest: Manifest, folder: Path) -> str:
    lines = [f"{'split':<10}{'shards':>8}{'studies':>10}{'patients':>10}  images"]
    for split in SPLITS:
        shards = sum(shard.split == split for shard in manifest.shards)
        views = manifest.images_by_split_and_view[split]
        images = ", ".join(f"{count:,} {view}" for view, count in views.items()) or "-"
        lines.append(
            f"{split:<10}{shards:>8,}{manifest.samples_by_split[split]:>10,}"
            f"{manifest.patients_by_split[split]:>10,}  {images}"
        )
    for reason, count in manifest.dropped_by_reason.items():
        lines.append(f"dropped: {count:,} x {reason}")
    return "\n".join([*lines, f"shards: {folder}"])
