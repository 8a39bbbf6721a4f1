"""Reading samples from shards."""

import contextlib
import errno
import io
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from data_shards.errors import InputError
from data_shards.records.manifest import read_shard_index
from data_shards.records.policies import POLICIES, Policy, select_sentences, word_count
from data_shards.remote.shards import ShardFiles
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.data import tars
from distributed_pretrain.data.quarantine import BadSampleError
from distributed_pretrain.data.shards import ShardSplit
from tests.fuzz.sealing import read_rows, reseal, write_rows
from tests.golden.record import RECORDED


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    write_synthetic_shards(
        folder, studies={"train": 10}, studies_a_shard=4, longest_side_px=48, views=("L", "PA")
    )
    return folder


def flip_a_byte(folder: Path, tar: str, *, sample: int, member: str) -> str:
    """Damage one member where it lies; the key of its sample."""
    stem = tar.removesuffix(".tar")
    entry = read_shard_index(folder / f"{stem}.index.json").samples[sample]
    with (folder / tar).open("r+b") as file:
        file.seek(entry.members[member].offset + entry.members[member].size // 2)
        byte = file.read(1)[0]
        file.seek(-1, io.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))
    return entry.key


def test_positions_count_in_file_order(shards: Path) -> None:
    split = ShardSplit(shards, "train", "lovt")
    assert split.shard_sizes == (4, 4, 2)
    assert [split.read(i).key for i in range(10)] == [f"train{i:06d}" for i in range(10)]
    assert [split.key(i) for i in range(10)] == [f"train{i:06d}" for i in range(10)]


def test_a_study_gives_its_images_on_demand(shards: Path) -> None:
    split = ShardSplit(shards, "train", "lovt")
    for entry in split.read(7).images:
        image = Image.open(io.BytesIO(split.read_member(7, entry.member)))
        assert image.size == (entry.width, entry.height)


def test_studies_without_a_frontal_image_or_enough_words_are_left_out(shards: Path) -> None:
    path = shards / "train-000000.index.json"
    index = read_rows(path)
    index["samples"][0]["views"] = ["L", None]
    index["samples"][1]["words"] = {"findings": [2], "impression": []}
    write_rows(path, index)
    reseal(shards)
    split = ShardSplit(shards, "train", "lovt")
    assert split.shard_sizes == (2, 4, 2)
    assert split.read(0).key == "train000002"
    assert split.told_left_out() == (
        "train: left out are 1 without a frontal image, 1 with fewer than 3 words under text "
        "policy 'lovt'; 8 are kept"
    )
    assert ShardSplit(shards, "train", "limitr").shard_sizes == (3, 4, 2)


@pytest.mark.parametrize("recorded", [False, True], ids=["of today", "of an earlier release"])
def test_shards_are_read_under_a_policy_of_a_later_release(
    shards: Path, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    folder = RECORDED / "shards" if recorded else shards
    longest = Policy(("findings",), minimum_words=12, minimum_words_per_sentence=4)
    monkeypatch.setitem(POLICIES, "long findings", longest)
    every = ShardSplit(folder, "train", "limitr")
    expected = [
        every.key(position)
        for position in range(len(every))
        if word_count(select_sentences(every.read(position).report, "long findings")) >= 12
    ]
    split = ShardSplit(folder, "train", "long findings")
    assert [split.key(position) for position in range(len(split))] == expected
    assert 0 < len(expected) < len(every)


def test_a_record_that_is_damaged_is_left_to_whoever_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an earlier release, whose index cannot tell of the policy."""
    shutil.copytree(RECORDED / "shards", tmp_path / "shards")
    key = flip_a_byte(tmp_path / "shards", "train-000000.tar", sample=1, member="json")
    monkeypatch.setitem(POLICIES, "later", Policy(("findings", "impression")))
    split = ShardSplit(tmp_path / "shards", "train", "later")
    (position,) = (i for i in range(len(split)) if split.key(i) == key)
    with pytest.raises(BadSampleError, match="'json' differs from its checksum"):
        split.read(position)


def test_a_fraction_of_the_patients_keeps_all_their_studies_and_grows_by_adding(
    tmp_path: Path,
) -> None:
    """Ten patients with two studies each."""
    folder = tmp_path / "shards"
    write_synthetic_shards(folder, studies={"train": 20}, studies_a_shard=6, longest_side_px=48)
    for path in sorted(folder.glob("*.index.json")):
        index = read_rows(path)
        for sample in index["samples"]:
            sample["patient_id"] = f"patient {int(sample['key'][-6:]) // 2}"
        write_rows(path, index)
    reseal(folder)
    kept: set[str] = set()
    for fraction, patients in ((0.01, 1), (0.3, 3), (0.66, 7), (1.0, 10)):
        split = ShardSplit(folder, "train", "lovt", patient_fraction=fraction)
        keys = {split.key(i) for i in range(len(split))}
        assert len(keys) == 2 * patients
        assert len({int(key[-6:]) // 2 for key in keys}) == patients
        assert kept < keys
        kept = keys
    first = {f"train{i:06d}" for i in range(6)}
    thirty_percent = ShardSplit(folder, "train", "lovt", patient_fraction=0.3)
    assert {thirty_percent.key(i) for i in range(6)} != first


def test_threads_read_the_same(shards: Path) -> None:
    split = ShardSplit(shards, "train", "lovt")
    expected = [split.read_member(i, "image1.jpg") for i in range(10)]
    with ThreadPoolExecutor(4) as pool:
        read = pool.map(lambda i: split.read_member(i, "image1.jpg"), [*range(10)] * 4)
        assert list(read) == expected * 4


def test_a_flipped_bit_is_named_when_the_member_is_read(shards: Path) -> None:
    key = flip_a_byte(shards, "train-000001.tar", sample=2, member="image1.jpg")
    split = ShardSplit(shards, "train", "lovt")
    split.read_member(6, "image0.jpg")
    with pytest.raises(BadSampleError, match=r"'image1.jpg' differs from its checksum") as caught:
        split.read_member(6, "image1.jpg")
    assert (caught.value.key, caught.value.shard) == (key, "train-000001.tar")


def test_only_images_and_json_are_ever_read(shards: Path) -> None:
    split = ShardSplit(shards, "train", "lovt")
    with pytest.raises(BadSampleError, match="not a jpg, png or json"):
        split.read_member(0, "payload.pkl")
    with pytest.raises(BadSampleError, match="not in the index"):
        split.read_member(0, "image9.jpg")


def test_a_tar_cut_short_is_refused(shards: Path) -> None:
    tar = shards / "train-000001.tar"
    tar.write_bytes(tar.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"train-000001.tar: 5000 bytes, but .*cut short"):
        ShardSplit(shards, "train", "lovt")


def test_a_tar_cut_or_gone_while_it_is_read_costs_samples_not_the_process(shards: Path) -> None:
    split = ShardSplit(shards, "train", "lovt")
    payload = split.read_member(0, "image0.jpg")
    os.truncate(shards / "train-000000.tar", 1000)
    (shards / "train-000002.tar").unlink()
    for position, said in ((1, "beyond the end of the tar"), (9, "No such file")):
        with pytest.raises(BadSampleError, match=said):
            split.read_member(position, "image0.jpg")
    assert split.read_member(5, "image0.jpg") != payload


@pytest.mark.parametrize("how", ["written over", "renamed over"])
def test_a_shard_replaced_while_it_is_read_gives_no_other_bytes(shards: Path, how: str) -> None:
    """Of the same names and size, so that only checksums tell."""
    tar, index = shards / "train-000000.tar", read_shard_index(shards / "train-000000.index.json")
    begun, opened = (ShardSplit(shards, "train", "lovt") for _ in range(2))
    wanted = [begun.read_member(position, "image0.jpg") for position in range(4)]
    other = bytearray(tar.read_bytes())
    for sample in index.samples:
        for member in sample.members.values():
            other[member.offset] ^= 1
    if how == "written over":
        tar.write_bytes(other)
    else:
        (shards / "other").write_bytes(other)
        (shards / "other").rename(tar)
    for position in range(4):
        with pytest.raises(BadSampleError, match="differs from its checksum"):
            opened.read_member(position, "image0.jpg")
        with contextlib.suppress(BadSampleError):
            assert begun.read_member(position, "image0.jpg") == wanted[position]
    assert opened.read(4).key == "train000004"


def test_permission_lost_while_shards_are_read_is_named(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what the system would say: whoever may read everything cannot lose it."""
    monkeypatch.setattr(tars, "_MOST_OPEN_TARS", 0)  # so that each is opened for each member
    split = ShardSplit(shards, "train", "lovt")
    split.read(0)
    split.read(8)
    open_file = ShardFiles.open

    def refuse(files: ShardFiles, name: str) -> io.FileIO:
        if name in ("train-000001.index.json", "train-000002.tar"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(files.path(name)))
        return open_file(files, name)

    monkeypatch.setattr(ShardFiles, "open", refuse)
    assert split.read(1).key == "train000001"
    with pytest.raises(PermissionError, match=r"train-000001\.index\.json"):
        split.read(4)
    with pytest.raises(BadSampleError, match=r"cannot be read \(Permission denied\)"):
        split.read(8)


def test_no_more_tars_are_held_open_than_a_process_may(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tars, "_MOST_OPEN_TARS", 1)
    split = ShardSplit(shards, "train", "lovt")
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: split.read(i % 10), range(200)))
    assert len(list(descriptors.iterdir())) <= before + 1


def test_a_missing_tar_is_refused(shards: Path) -> None:
    (shards / "train-000002.tar").unlink()
    with pytest.raises(InputError, match=r"train-000002.tar: the shard is missing"):
        ShardSplit(shards, "train", "lovt")


def test_an_index_that_is_not_the_manifests_is_refused(shards: Path) -> None:
    index = shards / "train-000000.index.json"
    index.write_text(index.read_text().replace("train000001", "train00000x"))
    with pytest.raises(InputError, match=r"train-000000.index.json: changed since"):
        ShardSplit(shards, "train", "lovt")


def test_a_manifest_of_another_schema_is_refused(shards: Path) -> None:
    manifest = shards / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema_version": 1', '"schema_version": 7'))
    with pytest.raises(InputError, match="schema version 7, but this release reads 1"):
        ShardSplit(shards, "train", "lovt")


def test_an_empty_split_is_refused(shards: Path) -> None:
    with pytest.raises(InputError, match="split 'validate' has no usable sample"):
        ShardSplit(shards, "validate", "lovt")
