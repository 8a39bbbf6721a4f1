"""What a build will find, take and write, told before it starts."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data_shards.building.hashed_ids import naming
from data_shards.building.plan import plan_source
from data_shards.building.presence import look_for_images
from data_shards.building.settings import ShardsConfig
from data_shards.building.study_conversion import ConvertedStudy, convert_study
from data_shards.errors import InputError
from data_shards.phantom.archive import draw_if_absent
from data_shards.records.study import SPLITS, StudyRecord
from data_shards.sources.base import Source, StudyRef

SHOWN = 3
# A tar's header and padding for each member, in bytes, on average.
_PER_MEMBER = 768
# Nothing smaller is worth estimating from fewer.
_TIMED = 12


def inspect_source(config: ShardsConfig) -> str:
    """What the source of a profile holds, in lines: studies, what is missing, samples, cost.

    Nothing is written but, where the profile draws a phantom, its archive. Raises InputError for
    whatever would stop the build before its first shard.
    """
    if config.phantom is not None:
        draw_if_absent(config.phantom, workers=config.worker_count)
    source = config.source.open()
    studies = source.list_studies()
    plan = plan_source(source, config, fingerprint="")
    splits = {
        split: sum(len(shard.studies) for shard in plan.shards if shard.split == split)
        for split in SPLITS
    }
    lines = [f"tables: {', '.join(map(str, _few(source.tables())))}"]
    lines += [_counted(source, studies)]
    lines += [f"splits: {', '.join(f'{n:,} {split}' for split, n in splits.items())}"]
    dropped = Counter(each.reason for each in (*source.list_dropped_images(), *plan.left_out))
    lines += [f"left out: {count:,} x {reason}" for reason, count in sorted(dropped.items())]
    lines += [f"warning: {each}" for each in (*source.warnings(), *plan.warnings)]
    presence = look_for_images(source)
    part = "" if presence.looked_for == presence.listed else f" (of {presence.listed:,} listed)"
    if presence.missing:
        lines += [f"missing: {presence.told()}{part}: missing_images=drop goes on without them"]
    else:
        lines += [f"missing: none of {presence.looked_for:,} images looked for{part}"]
    return "\n".join([*lines, *_tried(config, source, studies)])


def _counted(source: Source, studies: Sequence[StudyRef]) -> str:
    rows = [row for ref in studies for row in source.studies[ref]]
    patients = len({ref.patient_id for ref in studies})
    more = {
        "boxes": sum(len(row.boxes) for row in rows),
        "masks": sum(len(row.masks) for row in rows),
    }
    drawn = ", ".join(f"{count:,} {what}" for what, count in more.items() if count)
    labels = Counter(
        name
        for ref in studies
        for name, value in (source.studies[ref][0].labels or {}).items()
        if value == 1
    )
    told = ", ".join(f"{name} {count:,}" for name, count in labels.most_common(20))
    return (
        f"found: {len(studies):,} studies of {patients:,} patients, {len(rows):,} images"
        + (f", {drawn}" if drawn else "")
        + (f"\nlabels (studies with 1): {told}" if told else "")
    )


def _tried(config: ShardsConfig, source: Source, studies: Sequence[StudyRef]) -> list[str]:
    """Some studies converted: three of them shown, and what all will cost."""
    spread = [studies[number * len(studies) // _TIMED] for number in range(_TIMED)]
    name = naming(config.hash_ids)
    converted: list[ConvertedStudy] = []
    lines: list[str] = []
    tried = list(dict.fromkeys(spread))
    started = time.monotonic()
    for number, ref in enumerate(tried):
        if number == 1:
            # Anew: the first study waits for what all need once, such as decoders.
            started = time.monotonic()
        try:
            sample = source.load_study(ref)
            if isinstance(sample, str):
                lines += [f"study {name(ref.study_id)}: left out: {sample}"]
                continue
            study = convert_study(sample, config, key=f"sample-{number}", split="train")
        except InputError as error:
            lines += [f"study {name(ref.study_id)}: {error}"]
            continue
        if isinstance(study, ConvertedStudy):
            converted += [study]
    each_seconds = (time.monotonic() - started) / max(len(tried) - 1, 1)
    lines = lines[:SHOWN] + [_shown(study.record) for study in converted[:SHOWN]]
    if not converted:
        return [*lines, "no study could be read: nothing to estimate from"]
    each_bytes = sum(
        len(payload) + _PER_MEMBER for study in converted for payload in study.members.values()
    ) / len(tried)
    total_bytes, total_seconds = each_bytes * len(studies), each_seconds * len(studies)
    place = next(
        each for each in (config.output, *config.output.absolute().parents) if each.exists()
    )
    free = shutil.disk_usage(place).free
    cores = "1 core" if config.worker_count == 1 else f"{config.worker_count} cores"
    lines += [
        f"a build: about {_duration(total_seconds / config.worker_count)} on {cores}, "
        f"{_bytes(total_bytes)} in {config.output} ({_bytes(free)} are free)"
    ]
    if total_bytes > free:
        lines += ["warning: the disk is too small: pass another output=..."]
    return lines


def _shown(record: StudyRecord) -> str:
    images = ", ".join(
        f"{image.view} {image.original_width} x {image.original_height} px stored as "
        f"{image.width} x {image.height}"
        for image in record.images
    )
    parts = [images]
    positive = [name for name, value in record.labels.items() if value == 1]
    parts += [f"labels {', '.join(positive)}"] if positive else []
    parts += [f"{len(record.boxes)} boxes"] if record.boxes else []
    parts += [f"masks {', '.join(mask.category for mask in record.masks)}"] if record.masks else []
    sentences = sum(map(len, record.report.sentences.values()))
    parts += [f"{sentences} sentences in {', '.join(record.report.sections)}"] if sentences else []
    return f"study {record.study_id}: {'; '.join(parts)}"


def _few(tables: Sequence[Path]) -> Sequence[Path | str]:
    return [*tables[:SHOWN], f"and {len(tables) - SHOWN:,} more"] if len(tables) > 4 else tables


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _bytes(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
