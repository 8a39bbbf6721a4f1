"""Finished shards held against their manifest: bytes, members, ids, splits and counts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_shards.checking.shard_inspection import Inspection, inspect_shard
from data_shards.errors import InputError
from data_shards.images.notes import told
from data_shards.processes import Progress, map_in_processes, start_server
from data_shards.records.manifest import (
    MANIFEST_NAME,
    Manifest,
    index_name,
    read_manifest,
    read_shard_index,
)
from data_shards.records.study import SPLITS, Split
from data_shards.remote.shards import ShardFiles

SHOWN_PER_SHARD = 5
SHOWN_DUPLICATES = 10


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked and found. `warnings` are worth a look; `problems` make it unusable."""

    shards: int
    samples: int
    images: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    def told(self, shards: Path | ShardFiles) -> str:
        """What was found in `shards`, in lines."""
        counts = f"{self.shards:,} shards, {self.samples:,} samples, {self.images:,} images"
        lines = [f"{counts} in {shards}"]
        lines += [f"warning: {each}" for each in self.warnings]
        lines += [f"problem: {each}" for each in self.problems]
        many = f"{len(self.problems)} problems: delete what is damaged, build again"
        return "\n".join([*lines, many if self.problems else "everything is as the manifest says"])


def verify_shards(shards: Path | ShardFiles, *, workers: int) -> Verification:
    """Every hash, offset and member of the `shards`, and duplicates over all.

    Raises InputError when there is no manifest this release can read, and, as StoreError, when a
    store or its cache fails; everything else that is wrong is listed.
    """
    files = ShardFiles.of(shards)
    manifest = read_manifest(files.manifest_folder())
    if workers > 1:
        start_server(preload=("data_shards.checking.shard_inspection",))
    total = sum(entry.samples for entry in manifest.shards)
    with Progress("verify", total=total, unit="samples") as progress:
        inspections = map_in_processes(
            inspect_shard, files, manifest.shards, workers=workers, progress=progress
        )
    problems = [f"{MANIFEST_NAME}: {each}" for each in manifest.contradictions()]
    problems += [
        f"{each.entry.tar_name}: {problem}"
        for each in inspections
        for problem in _first(each.problems, SHOWN_PER_SHARD, what="")
    ]
    problems += _problems_across(inspections)
    if not problems:
        problems += _wrong_sums(manifest, inspections)
    images = sum(len(each.images) for each in inspections)
    noted = (note for each in inspections for note in each.noted)
    return Verification(
        shards=len(inspections),
        samples=sum(len(each.samples) for each in inspections),
        images=images,
        problems=tuple(problems),
        warnings=(
            *(() if files.is_remote else _strays(files.folder, manifest)),
            *_repeated_images(inspections),
            *told(noted, images=images),
        ),
    )


def _problems_across(inspections: Sequence[Inspection]) -> Iterator[str]:
    keys = Counter(sample.key for each in inspections for sample in each.samples)
    for key, count in sorted(keys.items()):
        if count > 1:
            yield f"{key}: this key is there {count} times"
    placed = {
        (sample.patient_id, each.entry.split) for each in inspections for sample in each.samples
    }
    for patient, count in sorted(Counter(patient for patient, _ in placed).items()):
        if count > 1:
            names = ", ".join(sorted(split for other, split in placed if other == patient))
            yield f"patient {patient}: in splits {names}"
    if not any(each.samples for each in inspections if each.entry.split == "train"):
        yield f"{MANIFEST_NAME}: no train shard with a sample"


def _wrong_sums(manifest: Manifest, inspections: Sequence[Inspection]) -> Iterator[str]:
    """Counts and statistics of the manifest that sound shards contradict."""
    for split in SPLITS:
        here = [each.index for each in inspections if each.entry.split == split]
        indexes = [index for index in here if index is not None]
        for wrong in manifest.contradictions_of_split(split, indexes):
            yield f"{MANIFEST_NAME}: {wrong}"


def _strays(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Tars that others would take for shards: WebDataset reads what a pattern names."""
    listed = {entry.tar_name for entry in manifest.shards}
    for tar in sorted(folder.glob("*.tar")):
        if tar.name in listed:
            continue
        try:
            if not read_shard_index(folder / index_name(tar.name)).samples:
                continue  # all of its studies were dropped
        except (InputError, OSError):
            pass
        yield f"{tar.name} is in the folder, but not in the manifest: delete it"


def _repeated_images(inspections: Sequence[Inspection]) -> list[str]:
    places: defaultdict[bytes, list[tuple[str, Split]]] = defaultdict(list)
    for each in inspections:
        for member, digest in each.images:
            places[digest].append((member, each.entry.split))
    repeated = [found for found in places.values() if len(found) > 1]
    # Those that leak from one split to another first.
    repeated.sort(key=lambda found: (-len({split for _, split in found}), found))
    lines = []
    for found in repeated:
        splits = sorted({split for _, split in found})
        across = f" across {' and '.join(splits)}" if len(splits) > 1 else ""
        names = ", ".join(member for member, _ in found[:3]) + (", ..." if len(found) > 3 else "")
        lines.append(f"the same image {len(found)} times{across}: {names}")
    return _first(lines, SHOWN_DUPLICATES, what=" images that repeat")


def _first(lines: Sequence[str], most: int, *, what: str) -> list[str]:
    hidden = len(lines) - most
    return [*lines[:most], *([f"and {hidden} more{what}"] if hidden > 0 else [])]
