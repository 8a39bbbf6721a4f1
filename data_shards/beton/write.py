"""`beton SHARDS`: a `.beton` beside the tars for each split, with the same members."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from data_shards.beton.file import BetonError, OpenBeton, Row, write_beton
from data_shards.beton.layout import END, beton_name, origin_of, others, shown_image
from data_shards.building.build import LOCK_NAME
from data_shards.errors import InputError
from data_shards.files.atomic import made_whole
from data_shards.files.lock import locked
from data_shards.processes import Progress
from data_shards.records.documents import refuse_contradictions
from data_shards.records.indexed_samples import IndexedSample
from data_shards.records.manifest import (
    MANIFEST_NAME,
    ShardEntry,
    ShardIndex,
    read_manifest,
    read_shard_index,
)
from data_shards.records.study import SPLITS, StudyRecord

_AGAIN = "run `python -m data_shards verify` and build the damaged shards again"


def write_betons(folder: Path) -> str:
    """What was written, in lines; a split whose beton is there already keeps it.

    Raises InputError for a folder that holds no finished shards, and for a damaged member.
    """
    manifest = read_manifest(folder)
    refuse_contradictions(manifest.contradictions(), folder / MANIFEST_NAME)
    lines = []
    busy = f"{folder}: {{holder}} is writing here: wait for it"
    with locked(folder / LOCK_NAME, busy=busy):
        for split in SPLITS:
            entries = [each for each in manifest.shards if each.split == split]
            count = sum(each.samples for each in entries)
            path = folder / beton_name(split)
            if not count:
                continue
            lines.append(f"{path}: {count:,} samples, {_write(path, entries, count)}")
    return "\n".join(lines)


def _write(path: Path, entries: Sequence[ShardEntry], count: int) -> str:
    origin = origin_of(entries)
    try:
        with OpenBeton(path, count=count, origin=origin):
            return "there already"
    except BetonError:
        pass
    sizes = (
        sum(member.size for member in sample.members.values()) + 2 * len(END)
        for index in _indexes(path.parent, entries)
        for sample in index.samples
    )
    with (
        Progress(path.name, total=count, unit="samples") as progress,
        made_whole(path) as unfinished,
        closing(_rows(path.parent, entries, progress)) as rows,
    ):
        write_beton(unfinished, rows, count=count, most_bytes=max(sizes), origin=origin)
    return f"{path.stat().st_size:,} bytes written"


def _indexes(folder: Path, entries: Sequence[ShardEntry]) -> Iterator[ShardIndex]:
    """One after another: those of a large set would not all be wanted in memory."""
    for entry in entries:
        yield read_shard_index(folder / entry.index_name, sha256=entry.index_sha256)


def _rows(folder: Path, entries: Sequence[ShardEntry], progress: Progress) -> Generator[Row]:
    for index in _indexes(folder, entries):
        tar = folder / index.tar_name
        try:
            file = tar.open("rb")
        except FileNotFoundError:
            raise InputError(f"{tar}: the shard is missing: build the shards again") from None
        with file:
            for sample in index.samples:
                payloads = {
                    name: member.read(file, tar_bytes=index.tar_bytes)
                    for name, member in sample.members.items()
                }
                try:
                    yield _row(sample, payloads)
                except ValueError as error:
                    raise InputError(f"{tar}: {sample.key}: {error}: {_AGAIN}") from error
                progress.advance()


def _row(sample: IndexedSample, payloads: dict[str, bytes | None]) -> Row:
    """Raises ValueError for a member that is damaged or missing."""
    whole: dict[str, bytes] = {}
    for name, payload in payloads.items():
        if payload is None:
            raise ValueError(f"{name} differs from its checksum")
        whole[name] = payload
    shown = shown_image(sample)
    for name in ("json", shown):
        if name not in whole:
            raise ValueError(f"has no {name}")
    record = StudyRecord.from_json(whole["json"])
    width, height = next(
        ((each.width, each.height) for each in record.images if each.member == shown), (0, 0)
    )
    return Row(
        record=whole["json"] + END,
        image=whole[shown],
        width=width,
        height=height,
        others=b"".join(whole[name] for name in others(sample)) + END,
    )
