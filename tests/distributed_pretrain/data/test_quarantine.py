"""Samples that cannot be read, counted over all ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.files.json_lines import JsonLines, rank_writer
from distributed_pretrain.data.quarantine import BadSampleError, Quarantine


def quarantine(path: Path, *, rank: int = 0, max_bad_fraction: float = 1.0) -> Quarantine:
    """Of a split of ten samples."""
    lines, writer = JsonLines(path), rank_writer(rank)
    return Quarantine("train", 10, max_bad_fraction=max_bad_fraction, lines=lines, writer=writer)


def bad(key: str) -> BadSampleError:
    return BadSampleError(key=key, shard="train-000000.tar", reason="checksum")


def keys(path: Path) -> list[str]:
    return [line["key"] for line in JsonLines(path).read()]


def test_each_rank_writes_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    for rank in range(3):
        quarantine(path, rank=rank).add(bad(f"study-{rank}"), samples_consumed=8)
    files = sorted(each.name for each in tmp_path.iterdir())
    assert files == ["quarantine-rank1.jsonl", "quarantine-rank2.jsonl", "quarantine.jsonl"]
    assert keys(path) == ["study-0", "study-1", "study-2"]


def test_every_rank_counts_the_samples_of_all(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    first, second = (quarantine(path, rank=rank, max_bad_fraction=0.2) for rank in range(2))
    first.add(bad("a"), samples_consumed=8)
    second.add(bad("b"), samples_consumed=8)
    first.add(bad("a"), samples_consumed=16)
    with pytest.raises(InputError, match="3 of 10 samples of split 'train' cannot be read"):
        first.add(bad("c"), samples_consumed=16)


def test_a_sample_that_two_ranks_meet_is_written_and_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    first, second = (quarantine(path, rank=rank, max_bad_fraction=0.1) for rank in range(2))
    first.add(bad("a"), samples_consumed=8)
    second.add(bad("a"), samples_consumed=16)
    assert keys(path) == ["a"]


def test_a_start_with_other_ranks_goes_on_with_the_lines_of_all(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    for rank in range(2):
        quarantine(path, rank=rank).add(bad(f"study-{rank}"), samples_consumed=8)
    alone = quarantine(path, max_bad_fraction=0.2)
    alone.add(bad("study-1"), samples_consumed=24)
    assert keys(path) == ["study-0", "study-1"]
    with pytest.raises(InputError, match="3 of 10"):
        alone.add(bad("study-2"), samples_consumed=24)


def test_another_split_is_counted_by_itself(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "quarantine.jsonl")
    lines.append({"key": "v", "split": "validate"})
    quarantine(lines.path, max_bad_fraction=0.1).add(bad("a"), samples_consumed=8)
