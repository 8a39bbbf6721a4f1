"""The manifest of finished shards, summed up from their indices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from data_shards.building.plan import refuse_empty_splits
from data_shards.errors import InputError
from data_shards.records.manifest import (
    DroppedSample,
    Manifest,
    PixelSums,
    ShardEntry,
    ShardIndex,
    file_sha256,
    images_by_view,
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
    samples = {
        split: [sample for each in indices if each.split == split for sample in each.samples]
        for split in SPLITS
    }
    dropped = [*dropped_images, *(each for index in indices for each in index.dropped)]
    dropped.sort(key=lambda each: (each.key, each.reason))
    reasons = dict(sorted(Counter(each.reason for each in dropped).items()))
    why = ", ".join(f"{count} x {reason}" for reason, count in reasons.items())
    refuse_empty_splits(
        {index.split for index in indices},
        {split for split, here in samples.items() if here},
        of=f"samples left (dropped: {why})",
    )
    train = (index.pixels for index in indices if index.split == "train")
    pixels = sum(train, PixelSums())
    if not pixels.count:
        raise InputError(
            f"{folder}: the indices count no pixel of a training image: delete them with their "
            "tars and build the shards again"
        )
    mean, std = pixels.mean_and_std()
    return Manifest(
        source=source,
        licence=licence,
        seed=seed,
        longest_side_px=longest_side_px,
        pixel_mean=mean,
        pixel_std=std,
        samples_by_split={split: len(here) for split, here in samples.items()},
        patients_by_split={
            split: len({sample.patient_id for sample in here}) for split, here in samples.items()
        },
        images_by_split_and_view={split: images_by_view(here) for split, here in samples.items()},
        # A shard whose studies were all dropped is nothing to train on.
        shards=tuple(
            ShardEntry(
                tar_name=index.tar_name,
                index_name=index_name(index.tar_name),
                split=index.split,
                samples=len(index.samples),
                bytes=index.tar_bytes,
                sha256=index.tar_sha256,
                index_sha256=file_sha256(folder / index_name(index.tar_name)),
            )
            for index in indices
            if index.samples
        ),
        dropped=tuple(dropped),
        dropped_by_reason=reasons,
    )
