import hashlib
import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from data_shards.__main__ import main
from data_shards.building.settings import ShardsConfig
from data_shards.checking.verify import verify_shards
from data_shards.errors import InputError
from data_shards.files.atomic import write_text_atomically
from data_shards.records.indexed_samples import IndexedSamples
from data_shards.records.manifest import Manifest, ShardIndex, read_manifest, read_shard_index
from tests.data_shards.building.whole import build_shards
from tests.golden.record import RECORDED

TAR = "train-000000.tar"
INDEX = "train-000000.index.json"


@pytest.fixture
def shards(make_config: Callable[..., ShardsConfig]) -> Path:
    config = make_config()
    build_shards(config)
    return config.output


def problems(shards: Path) -> str:
    return "\n".join(verify_shards(shards, workers=1).problems)


def reseal(shards: Path, index: ShardIndex) -> None:
    """Write `index`, and a manifest whose hashes are right, so that only deeper checks object."""
    tar = (shards / TAR).read_bytes()
    sealed = index.model_copy(
        update={"tar_sha256": hashlib.sha256(tar).hexdigest(), "tar_bytes": len(tar)}
    )
    write_text_atomically(shards / INDEX, sealed.model_dump_json())
    manifest = read_manifest(shards)
    entry = manifest.shards[0]
    assert entry.tar_name == TAR
    resealed = entry.model_copy(
        update={
            "sha256": sealed.tar_sha256,
            "bytes": sealed.tar_bytes,
            "index_sha256": hashlib.sha256((shards / INDEX).read_bytes()).hexdigest(),
        }
    )
    changed = manifest.model_copy(update={"shards": (resealed, *manifest.shards[1:])})
    write_text_atomically(shards / "manifest.json", changed.model_dump_json())


@pytest.mark.parametrize("workers", [1, 2])
def test_sound_shards_pass_and_everything_is_counted(
    shards: Path, archive: Path, workers: int
) -> None:
    verification = verify_shards(shards, workers=workers)
    assert verification.problems == ()
    assert verification.warnings == ()
    assert verification.shards == len(list(shards.glob("*.tar")))
    assert verification.samples == 28
    assert verification.images == len(list((archive / "images").iterdir()))


def test_a_flipped_bit_is_found_and_its_member_named(shards: Path) -> None:
    sample = read_shard_index(shards / INDEX).samples[2]
    tar = bytearray((shards / TAR).read_bytes())
    tar[sample.members["image0.jpg"].offset + 200] ^= 1
    (shards / TAR).write_bytes(tar)
    found = problems(shards)
    assert f"{TAR}: sha256 differs" in found
    assert f"{sample.key}.image0.jpg: checksum differs" in found


def test_a_tar_cut_short_is_found(shards: Path) -> None:
    tar = (shards / TAR).read_bytes()
    (shards / TAR).write_bytes(tar[: len(tar) // 2])
    assert f"{TAR}: {len(tar) // 2:,} bytes, but the manifest says {len(tar):,}" in problems(shards)


def test_a_missing_tar_and_a_missing_index_are_found(shards: Path) -> None:
    (shards / TAR).unlink()
    (shards / "train-000001.index.json").unlink()
    found = problems(shards)
    assert f"{TAR}: the tar is missing" in found
    assert "train-000001.index.json: the index of a shard is missing" in found


def test_offsets_that_are_not_the_tars_are_found(shards: Path) -> None:
    index = read_shard_index(shards / INDEX)
    first, second, *others = index.samples
    swapped = (
        replace(first, members=second.members),
        replace(second, members=first.members),
    )
    samples = IndexedSamples.of((*swapped, *others))
    reseal(shards, index.model_copy(update={"samples": samples}))
    found = problems(shards)
    assert f"{first.key}.image0.jpg: (offset, size)" in found


def test_members_that_nothing_names_or_decodes_are_found(shards: Path) -> None:
    index = read_shard_index(shards / INDEX)
    with tarfile.open(shards / TAR, "a") as archive:
        entry = tarfile.TarInfo(f"{index.samples[0].key}.weights.pickle")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"abc"))
    reseal(shards, index)
    assert "weights.pickle: in the tar, but not in the index" in problems(shards)


def test_what_other_programs_may_read_otherwise_is_found(shards: Path) -> None:
    """A key that is there twice, and bytes that some read on to."""
    index = read_shard_index(shards / INDEX)
    with (shards / TAR).open("ab") as tar:
        tar.write((shards / TAR).read_bytes())
    reseal(shards, index)
    assert f"{TAR}: not a whole tar (other bytes are behind its end)" in problems(shards)
    path = shards / "train-000001.index.json"
    path.write_text(path.read_text().replace("{", '{"split": "test", ', 1))
    assert "train-000001.index.json: Invalid JSON: 'split' is there twice" in problems(shards)


def test_a_patient_in_two_splits_and_a_repeated_key_are_found(shards: Path) -> None:
    manifest = read_manifest(shards)
    test_shard = next(entry for entry in manifest.shards if entry.split == "test")
    first = manifest.shards[0]
    copied = test_shard.model_copy(
        update={
            "tar_name": first.tar_name,
            "index_name": first.index_name,
            "sha256": first.sha256,
            "index_sha256": first.index_sha256,
            "bytes": first.bytes,
        }
    )
    write_manifest(shards, manifest.model_copy(update={"shards": (*manifest.shards, copied)}))
    found = problems(shards)
    sample = read_shard_index(shards / INDEX).samples[0]
    assert f"{sample.key}: this key is there 2 times" in found
    assert f"patient {sample.patient_id}: in splits test, train" in found


def write_manifest(shards: Path, manifest: Manifest) -> None:
    write_text_atomically(shards / "manifest.json", manifest.model_dump_json())


def test_statistics_that_the_shards_contradict_are_found(shards: Path) -> None:
    manifest = read_manifest(shards)
    write_manifest(shards, manifest.model_copy(update={"pixel_mean": 0.25}))
    assert "pixel_mean and pixel_std are not those" in problems(shards)


def test_a_manifest_that_says_a_thing_twice_is_refused(shards: Path) -> None:
    path = shards / "manifest.json"
    path.write_text(path.read_text().replace("{", '{"pixel_std": 0.9,', 1))
    with pytest.raises(InputError, match="'pixel_std' is there twice"):
        verify_shards(shards, workers=1)


def test_the_same_image_twice_is_a_warning(
    archive: Path, make_config: Callable[..., ShardsConfig]
) -> None:
    images = archive / "images"
    (images / "p0_s1_PA.jpg").write_bytes((images / "p0_s0_PA.jpg").read_bytes())
    config = make_config()
    build_shards(config)
    verification = verify_shards(config.output, workers=1)
    assert verification.problems == ()
    (warning,) = verification.warnings
    assert warning.startswith("the same image 2 times: p0_s0.image0.jpg, p0_s1.image0.jpg") or (
        warning.startswith("the same image 2 times: p0_s1.image0.jpg, p0_s0.image0.jpg")
    )


def test_the_command_exits_2_and_lists_each_problem(
    shards: Path, profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(profile)]) == 0
    assert "everything is as the manifest says" in capsys.readouterr().out
    (shards / TAR).unlink()
    assert main(["verify", str(profile)]) == 2
    assert f"problem: {TAR}: the tar is missing" in capsys.readouterr().out.splitlines()


def test_shards_of_an_earlier_release_are_sound() -> None:
    verification = verify_shards(RECORDED / "shards", workers=1)
    assert verification.problems == ()
    assert verification.warnings == ()
    assert verification.samples > 10


def test_a_tar_that_the_manifest_does_not_list_is_a_warning(shards: Path) -> None:
    """WebDataset would read it by its name; a shard of which all was dropped is none."""
    for name in (TAR, INDEX):
        (shards / name.replace("000000", "000009")).write_bytes((shards / name).read_bytes())
    (warning,) = verify_shards(shards, workers=1).warnings
    assert warning.startswith("train-000009.tar is in the folder, but not in the manifest")


@pytest.mark.parametrize(
    ("at", "what"), [(124, b"0000000z123"), (124, b"\x80" + b"\x7f" * 10), (156, b"x"), (156, b"S")]
)
def test_a_header_that_no_shard_has_is_a_problem(shards: Path, at: int, what: bytes) -> None:
    """A size that is no number or beyond all, extended names without any, a sparse file."""
    tar = bytearray((shards / TAR).read_bytes())
    tar[at : at + len(what)] = what
    tar[148:156] = b" " * 8
    tar[148:156] = b"%06o\0 " % sum(tar[:512])
    (shards / TAR).write_bytes(tar)
    assert f"{TAR}: not a whole tar" in problems(shards)
