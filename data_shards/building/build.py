"""A source turned into a folder of shards: planned, written by all cores, then summed up.

A rerun goes on where the last run stopped: a shard whose index is of the same plan and whose
tar has the size it should have is not touched again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from data_shards.building.dataset_card import CARD_NAME, dataset_card
from data_shards.building.hashed_ids import naming, renamed, without_examples
from data_shards.building.plan import BuildPlan, ShardPlan, plan_source
from data_shards.building.presence import refuse_half_a_folder
from data_shards.building.settings import ShardsConfig
from data_shards.building.shard_writer import ShardContext, write_shard
from data_shards.building.summary import count_reports, summarise
from data_shards.errors import MISSING_IMAGE, InputError
from data_shards.files.atomic import refuse_full_disk, write_text_atomically
from data_shards.files.folders import what_is_no_folder
from data_shards.files.lock import locked
from data_shards.phantom.archive import draw_if_absent
from data_shards.processes import Progress, map_in_processes, start_server
from data_shards.records.manifest import (
    MANIFEST_NAME,
    Manifest,
    ShardIndex,
    index_name,
    read_manifest,
    read_shard_index,
)
from data_shards.records.study import SPLITS

# Importing webdataset brings in torch: seconds, spent once for all workers while the
# studies are being listed.
WORKER_MODULES = ("webdataset.writer", "data_shards.building.shard_writer")
LOCK_NAME = "build.lock"


@dataclass(frozen=True, slots=True)
class BuiltPart:
    """How a build stands when one of its parts is done: a manifest once no shard is missing.

    `reports` are lines on what was found in them.
    """

    planned: int
    missing: int
    manifest: Manifest | None
    reports: tuple[str, ...] = ()


def build(config: ShardsConfig) -> str:
    """Build the whole or the part that `config` asks for; what came of it, in lines."""
    built = build_part(config)
    if built.manifest is None:
        return (
            f"part {config.part} done: {built.missing:,} of {built.planned:,} shards are still to "
            "be written by other parts; the last one writes the manifest"
        )
    return _described(built.manifest, built.reports, config.output)


def build_part(config: ShardsConfig) -> BuiltPart:
    """How the build into `config.output` stands once the shards of `config.part` are written.

    Parts run side by side on any machines that share the folder. Together they give the bytes
    of a whole build, which is a single part; one that finds no shard missing writes the manifest.
    The bytes depend on the source and the config, not on the number of workers nor on how often
    the build was stopped. Raises InputError for bad input; finished shards stay, half-written
    files do not.
    """
    if config.worker_count > 1:
        start_server(preload=WORKER_MODULES)
    drawn = ""
    if config.phantom is not None:
        drawn = draw_if_absent(config.phantom, workers=config.worker_count)
    source, folder = config.source.open(), config.output
    source.list_studies()  # what is wrong with the tables, before the images
    source.refuse_absent_folder()
    if not config.drops(MISSING_IMAGE):
        refuse_half_a_folder(source)
    plan = plan_source(source, config, fingerprint=source.fingerprint() + drawn)
    with (
        workplace_in(folder, config.part) as workplace,
        refuse_full_disk(folder, what="shards", option="output"),
    ):
        _refuse_other_plans(folder, plan)
        context = ShardContext(config, source, plan.sha256, workplace)
        wrote = _write(context, plan.of_part(config.part))
        indices = [each for each in _written(folder, plan.shards) if each is not None]
        missing = len(plan.shards) - len(indices)
        manifest = None
        if not missing and config.part and not wrote and (folder / MANIFEST_NAME).is_file():
            manifest = read_manifest(folder)
        elif not missing:
            # Parts that started together found an empty folder, whatever their settings.
            _refuse_other_plans(folder, plan)
            manifest = _sum_up(context, plan, indices)
        reports = count_reports(indices) if manifest else ()
        return BuiltPart(len(plan.shards), missing, manifest, reports)


def _written(folder: Path, shards: Sequence[ShardPlan]) -> Iterator[ShardIndex | None]:
    """The index of each shard, or None for those still to be written."""
    # One listing rather than a look at each name: it is cheap, and a network file system may
    # remember for a while that a name was not there.
    names = {path.name for path in folder.iterdir()}
    for tar in (shard.tar_name for shard in shards):
        index = None
        if {tar, index_name(tar)} <= names:
            index = read_shard_index(folder / index_name(tar))
        if index is not None and (
            # It may have been copied over another.
            index.tar_name != tar or (folder / tar).stat().st_size != index.tar_bytes
        ):
            index = None
        yield index


def _write(context: ShardContext, shards: Sequence[ShardPlan]) -> bool:
    """Write those of `shards` that are not done; whether there were any."""
    config = context.config
    done = _written(config.output, shards)
    todo = [shard for shard, index in zip(shards, done, strict=True) if index is None]
    if todo:
        (config.output / MANIFEST_NAME).unlink(missing_ok=True)
    studies = sum(len(shard.studies) for shard in todo)
    with Progress("build", total=studies, unit="studies") as progress:
        map_in_processes(write_shard, context, todo, workers=config.worker_count, progress=progress)
    return bool(todo)


def _sum_up(context: ShardContext, plan: BuildPlan, indices: Sequence[ShardIndex]) -> Manifest:
    """Write the side reports and, last, the manifest of the finished shards."""
    config, source = context.config, context.source
    named = naming(config.hash_ids)
    manifest = summarise(
        config.output,
        indices,
        source=config.source_name,
        licence=config.source.licence,
        seed=config.seed,
        longest_side_px=config.longest_side_px,
        dropped_images=[
            *(renamed(each, named) for each in source.list_dropped_images()),
            *plan.left_out,
        ],
    )
    of_tables = (*source.warnings(), *plan.warnings)
    if config.hash_ids is not None:
        of_tables = tuple(map(without_examples, of_tables))
    told = {"warnings": (*of_tables, *manifest.warnings), "hashed_ids": config.hash_ids is not None}
    manifest = manifest.model_copy(update=told)
    texts = dict(source.side_reports())
    if (card := dataset_card(config.output, manifest, indices)) is not None:
        texts[CARD_NAME] = card
    # Of plain ids nothing is said, so that earlier releases read the manifest.
    unsaid = None if manifest.hashed_ids else {"hashed_ids"}
    texts[MANIFEST_NAME] = manifest.model_dump_json(indent=1, exclude=unsaid)
    for name, text in texts.items():
        write_text_atomically(config.output / name, text, workplace=context.workplace)
    return manifest


def _refuse_other_plans(folder: Path, plan: BuildPlan) -> None:
    for path in sorted(folder.glob("*.index.json")):
        if read_shard_index(path).plan_sha256 != plan.sha256:
            raise InputError(
                f"{folder}: holds shards of another source, seed or setting ({path.name}), where "
                "an edited table or another release counts as another: pass another output=..., "
                "or delete that folder"
            )


def _described(manifest: Manifest, reports: Sequence[str], folder: Path) -> str:
    lines = [f"{'split':<10}{'shards':>8}{'studies':>10}{'patients':>10}  images"]
    for split in SPLITS:
        shards = sum(shard.split == split for shard in manifest.shards)
        views = manifest.images_by_split_and_view[split]
        images = ", ".join(f"{count:,} {view}" for view, count in views.items()) or "-"
        lines.append(
            f"{split:<10}{shards:>8,}{manifest.samples_by_split[split]:>10,}"
            f"{manifest.patients_by_split[split]:>10,}  {images}"
        )
    lines += reports
    for reason, count in manifest.dropped_by_reason.items():
        lines.append(f"dropped: {count:,} x {reason}")
    lines += [f"warning: {each}" for each in manifest.warnings]
    return "\n".join([*lines, f"shards: {folder}"])


@contextmanager
def workplace_in(folder: Path, part: str | None) -> Iterator[Path]:
    """Where unfinished files go meanwhile: `folder` itself, or for a part a folder of its own.

    Folders are made, and go again when they stay empty. A whole build keeps all others out, a part
    whole builds and whoever builds the same part. What killed ones left is removed first. Bytes do
    not hang on the locks: a shard that two processes write, where a network file system has none,
    is the same twice and appears whole. Raises InputError where nothing can be written,
    and where another build is under way.
    """
    busy = f"{folder}: another build is writing here: wait for it, or pass another output=..."
    with ExitStack() as stack:
        stack.enter_context(_removed_if_empty(folder))
        if what := what_is_no_folder(folder):
            raise InputError(f"{folder}: cannot hold the shards ({what}): pass another output=...")
        try:
            stack.enter_context(locked(folder / LOCK_NAME, shared=part is not None, busy=busy))
        except OSError as error:
            raise InputError(
                f"{folder}: cannot hold the shards ({error.strerror}): pass another output=..."
            ) from error
        # Running parts keep no such file here; a whole build may lose workers that were killed.
        _remove_files(folder)
        if part is None:
            for left in folder.glob("part-*-of-*.partial"):
                shutil.rmtree(left)
            stack.callback(_remove_files, folder)
            yield folder
            return
        own = folder / f"part-{part.replace('/', '-of-')}.partial"
        busy = f"{folder}: part {part} is being built already: wait for it"
        stack.enter_context(_removed_if_empty(own))
        stack.enter_context(locked(own / LOCK_NAME, busy=busy))
        for left in own.glob("run-*"):
            shutil.rmtree(left, ignore_errors=True)
        # New with every run: without locks, a second run of the part takes the files of the
        # first away, which then fails, instead of writing into them.
        run = TemporaryDirectory(prefix="run-", dir=own, ignore_cleanup_errors=True)
        yield Path(stack.enter_context(run))


def _remove_files(folder: Path) -> None:
    for path in folder.glob("*.partial"):
        if not path.is_dir():
            path.unlink(missing_ok=True)


@contextmanager
def _removed_if_empty(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        # Not empty, or not there.
        with suppress(OSError):
            folder.rmdir()
