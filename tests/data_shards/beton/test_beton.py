"""Betons: what the verb writes, and what is refused, each in one line."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest

from data_shards.__main__ import main
from data_shards.beton import layout
from data_shards.errors import InputError
from data_shards.records.manifest import read_manifest, read_shard_index
from data_shards.remote.shards import ShardFiles
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.data.quarantine import BadSampleError
from distributed_pretrain.data.shards import ShardSplit
from tests.ffcv import needs_ffcv

STUDIES = 10


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    write_shards(folder)
    return folder


def write_shards(folder: Path, *, seed: int = 0) -> None:
    write_synthetic_shards(
        folder,
        studies={"train": STUDIES, "validate": 3},
        studies_a_shard=4,
        longest_side_px=48,
        views=("L", "PA", "AP"),
        seed=seed,
    )


def beton(shards: Path) -> Path:
    assert main(["beton", str(shards)]) == 0
    return shards / "train.beton"


def opened(shards: Path) -> ShardSplit:
    return ShardSplit(ShardFiles(shards, reader="ffcv"), "train", "lovt")


def refusal(shards: Path) -> str:
    with pytest.raises(InputError) as raised:
        opened(shards)
    said = str(raised.value)
    assert "\n" not in said
    assert f"python -m data_shards beton {shards}" in said
    return said


def test_a_sample_lies_in_three_fields(shards: Path) -> None:
    sample = read_shard_index(shards / "train-000000.index.json").samples[0]
    assert layout.place_of(sample, "json") == ("record", 0)
    assert layout.place_of(sample, "image1.jpg") == ("image", 0)  # the lateral one comes before
    first, second = layout.others(sample)
    assert layout.place_of(sample, first) == ("others", 0)
    assert layout.place_of(sample, second) == ("others", sample.members[first].size)


def test_origins_differ_by_the_shards_and_their_order(shards: Path, tmp_path: Path) -> None:
    entries = read_manifest(shards).shards
    write_shards(tmp_path / "others", seed=1)
    others = read_manifest(tmp_path / "others").shards
    origins = [layout.origin_of(each) for each in (entries, others, entries[::-1], entries[:1])]
    assert len({*origins}) == 4


@needs_ffcv
def test_each_member_is_in_the_beton_byte_for_byte(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ShardSplit(shards, "train", "lovt")
    members = [*wanted.read(0).images, *wanted.read(STUDIES - 1).images]
    path = beton(shards)
    printed = capsys.readouterr().out
    assert printed.startswith(f"{path}: {STUDIES} samples, {path.stat().st_size:,} bytes written\n")
    assert f"{shards / 'validate.beton'}: 3 samples" in printed
    split = opened(shards)
    assert len({each.member for each in members}) == 3
    for position in range(STUDIES):
        assert split.read(position) == wanted.read(position)
        for image in wanted.read(position).images:
            payload = split.view_member(position, image.member)
            assert isinstance(payload, memoryview)
            assert payload == wanted.read_member(position, image.member)


@needs_ffcv
def test_betons_that_are_there_are_kept_and_those_of_other_shards_are_not(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = beton(shards).stat()
    capsys.readouterr()
    assert beton(shards).stat().st_mtime_ns == before.st_mtime_ns
    assert capsys.readouterr().out.count("there already") == 2
    shutil.rmtree(shards)
    write_shards(shards, seed=1)
    write_shards(tmp_path / "others", seed=2)
    shutil.copy(beton(tmp_path / "others"), shards / "train.beton")
    assert "written from other shards than lie here" in refusal(shards)
    assert opened_after_writing(shards) == STUDIES


def opened_after_writing(shards: Path) -> int:
    beton(shards)
    return len(opened(shards))


@needs_ffcv
def test_training_needs_no_tars(shards: Path) -> None:
    beton(shards)
    for tar in shards.glob("*.tar"):
        tar.unlink()
    assert [opened(shards).read(each).key for each in (0, 9)] == ["train000000", "train000009"]


@needs_ffcv
def test_what_is_no_whole_beton_of_these_shards_is_refused(shards: Path) -> None:
    assert "train.beton: not there: " in refusal(shards)
    path = beton(shards)
    whole = path.read_bytes()
    for kept in (whole[:3], whole[:100], whole[: 8 << 20], whole[:-1], whole + b"\0", b"", b"x"):
        path.write_bytes(kept)
        assert "bytes, " in refusal(shards)
    path.write_bytes(b"\x01" + whole[1:])  # the version of FFCV's format
    assert "no file of FFCV's format 2" in refusal(shards)
    at = whole.index(b"radalign beton 1 ")
    path.write_bytes(whole[: at + 15] + b"2" + whole[at + 16 :])
    assert "written by another program or release: not a radalign beton 1" in refusal(shards)
    path.write_bytes(whole[:24] + b"\x63" + whole[25:])  # the type of the first field
    assert "its description of itself is damaged" in refusal(shards)
    path.write_bytes(whole)
    for part in shards.glob("train-000002*"):
        part.unlink()
    folder = shards.parent / "fewer"
    write_synthetic_shards(folder, studies={"train": 9}, studies_a_shard=4, longest_side_px=48)
    shutil.copy(path, folder)
    assert "10 rows, where the shards have 9 samples" in refusal(folder)


@needs_ffcv
def test_damage_is_a_bad_sample_and_a_cut_is_noticed(shards: Path) -> None:
    path = beton(shards)
    payload = ShardSplit(shards, "train", "lovt").read_member(7, "image0.jpg")
    at = path.read_bytes().index(payload) + len(payload) // 2
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\x13\x37")
    split = opened(shards)
    with pytest.raises(BadSampleError, match=r"'image0.jpg' differs from its checksum"):
        split.read_member(7, "image0.jpg")
    assert split.read_member(7, "image1.jpg").startswith(b"\xff\xd8")
    with pytest.raises(BadSampleError, match="not in the index"):
        split.read_member(7, "image9.jpg")
    os.truncate(path, 8 << 20)  # while it is mapped, and the first page begins there
    with pytest.raises(BadSampleError, match="lies beyond the end of the beton"):
        split.read_member(0, "image0.jpg")


@needs_ffcv
def test_a_damaged_tar_is_not_written_on(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = read_shard_index(shards / "train-000001.index.json")
    with (shards / index.tar_name).open("r+b") as file:
        file.seek(index.samples[1].members["image2.jpg"].offset)
        file.write(b"\x13\x37")
    assert main(["beton", str(shards)]) == 2
    said = capsys.readouterr().err
    assert "train-000001.tar: train000005: image2.jpg differs from its checksum" in said
    assert not [each for each in shards.iterdir() if "beton" in each.name]


@needs_ffcv
def test_a_full_disk_ends_in_a_line_and_leaves_nothing(
    shards: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ffcv.memory_allocator import MemoryAllocator

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(MemoryAllocator, "flush_page", full)
    before = {*Path("/dev/shm").iterdir()}
    assert main(["beton", str(shards)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"error: {shards / 'train.beton'}: No space left on device: free some space"
    )
    assert not [each for each in shards.iterdir() if "beton" in each.name]
    assert {*Path("/dev/shm").iterdir()} <= before


def test_without_ffcv_the_extra_is_named(
    shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "data_shards.beton.file", None)
    monkeypatch.delitem(sys.modules, "data_shards.beton.write", raising=False)
    assert main(["beton", str(shards)]) == 2
    assert "beton needs the extra `ffcv`" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"data\.reader=ffcv needs the extra `ffcv`"):
        opened(shards)
