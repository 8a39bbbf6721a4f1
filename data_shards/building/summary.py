"""The manifest of finished shards, summed up from their indices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from data_shards.errors import InputError
from data_shards.images.notes import told
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
from data_shards.records.policies import POLICIES
from data_shards.records.study import SPLITS
from data_shards.report_text.section_names import MAIN_SECTIONS


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
    study was dropped, and for training images that are all of one value.
    """
    samples = {split: [each.samples for each in indices if each.split == split] for split in SPLITS}
    totals = {split: sum(map(len, here)) for split, here in samples.items()}
    views = {
        split: Counter(chain.from_iterable(each.views for each in here))
        for split, here in samples.items()
    }
    patients = {
        split: set(chain.from_iterable(each.patient_ids for each in here))
        for split, here in samples.items()
    }
    dropped = [*dropped_images, *(each for index in indices for each in index.dropped)]
    dropped.sort(key=lambda each: (each.key, each.reason))
    reasons = dict(sorted(Counter(each.reason for each in dropped).items()))
    why = ", ".join(f"{count} x {reason}" for reason, count in reasons.items())
    for split in sorted({index.split for index in indices}, key=SPLITS.index):
        if not totals[split]:
            raise InputError(
                f"split {split!r} has no samples left (dropped: {why}): mend what these name; "
                "bad_images=stop and source.bad_reports=stop tell where the first one is"
            )
    train = (index.pixels for index in indices if index.split == "train")
    pixels = sum(train, PixelSums())
    if not pixels.count:
        raise InputError(
            f"{folder}: the indices count no pixel of a training image: delete them with their "
            "tars and build the shards again"
        )
    mean, std = pixels.mean_and_std()
    warnings = told(
        ((noted.key, noted.kind, noted.detail) for each in indices for noted in each.noted),
        images=sum(map(len, chain.from_iterable(each.samples.views for each in indices))),
    )
    return Manifest(
        source=source,
        licence=licence,
        seed=seed,
        longest_side_px=longest_side_px,
        pixel_mean=mean,
        pixel_std=std,
        samples_by_split=totals,
        patients_by_split={split: len(here) for split, here in patients.items()},
        images_by_split_and_view={split: images_by_view(here) for split, here in views.items()},
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
        warnings=warnings,
    )


def count_reports(indices: Iterable[ShardIndex]) -> tuple[str, ...]:
    """Which sections the reports have, and which sentences no text policy takes, in lines.

    A sentence is left by all policies for its section, or because nothing but marks of
    de-identification is in it. Without any sentence there is nothing to say.
    """
    reports: Counter[str] = Counter()
    left: Counter[str] = Counter()
    total = 0
    for sample in (sample for index in indices for sample in index.samples):
        # Of the reports' sentences only those that hold a word make a section.
        by_section = sample.words_of_sentences()
        sections = {name for name, counts in by_section.items() if any(counts)}
        taken = {name for each in POLICIES.values() for name in each.sections_of(sections)}
        main = sections.intersection(MAIN_SECTIONS)
        if by_section:
            reports.update(main or ["free text" if taken else "none"])
        for name, counts in by_section.items():
            total += len(counts)
            left[name if name not in taken else "only removed words"] += sum(
                name not in taken or not count for count in counts
            )
    if not total:
        return ()
    parts = ", ".join(f"{name} {count:,}" for name, count in left.most_common(8) if count)
    return (
        f"reports: {reports['findings']:,} with findings, {reports['impression']:,} with "
        f"impression, {reports['free text']:,} with neither but free text, {reports['none']:,} "
        "with nothing that a text policy takes",
        f"sentences: {total:,}, of which no text policy takes {left.total():,}"
        + (f" (most in {parts})" if parts else ""),
    )
