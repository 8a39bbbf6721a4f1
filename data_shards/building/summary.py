"""The manifest of finished shards, summed up from their indices."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from data_shards.building.plan import refuse_empty_splits
from data_shards.records.manifest import (
    DroppedSample,
    Manifest,
    PixelSums,
    ShardEntry,
    ShardIndex,
    index_name,
)
from data_shards.records.study import SPLITS


def summarise(
    folder: Path,
    indices: Sequence[ShardIndex],
    *,
    source: str,
    licence: str,
    seed: int,
    longest_side_px: int,
    dropped_images: Iterable[DroppedSample] = (),
) -> Manifest:
    """The manifest of the shards of `indices`, which lie in `folder`.

    `dropped_images` are those that no shard has met. Raises InputError for a split of which every
    study was dropped.
    """
    of_split = {split: [each for each in indices if each.split == split] for split in SPLITS}
    dropped = [*dropped_images, *(each for index in indices for each in index.dropped)]
    dropped.sort(key=lambda each: (each.key, each.reason))
    reasons = dict(sorted(Counter(each.reason for each in dropped).items()))
    why = ", ".join(f"{count} x {reason}" for reason, count in reasons.items())
    refuse_empty_splits(
        {index.split for index in indices},
        {index.split for index in indices if index.samples},
        of=f"samples left (dropped: {why})",
    )
    mean, std = sum((each.pixels for each in of_split["train"]), PixelSums()).mean_and_std()
    return Manifest(
        source=source,
        licence=licence,
        seed=seed,
        longest_side_px=longest_side_px,
        pixel_mean=mean,
        pixel_std=std,
        samples_by_split={
            split: sum(len(index.samples) for index in here) for split, here in of_split.items()
        },
        patients_by_split={
            split: len({sample.patient_id for index in here for sample in index.samples})
            for split, here in of_split.items()
        },
        images_by_split_and_view={split: _views(here) for split, here in of_split.items()},
        # A shard whose studies were all dropped is nothing to train on.
        shards=tuple(_entry(folder, index) for index in indices if index.samples),
        dropped=tuple(dropped),
        dropped_by_reason=reasons,
    )


def _views(indices: Iterable[ShardIndex]) -> dict[str, int]:
    views = (view or "unknown" for i in indices for sample in i.samples for view in sample.views)
    return dict(sorted(Counter(views).items()))


def _entry(folder: Path, index: ShardIndex) -> ShardEntry:
    name = index_name(index.tar_name)
    return ShardEntry(
        tar_name=index.tar_name,
        index_name=name,
        split=index.split,
        samples=len(index.samples),
        bytes=index.tar_bytes,
        sha256=index.tar_sha256,
        index_sha256=hashlib.sha256((folder / name).read_bytes()).hexdigest(),
    )
