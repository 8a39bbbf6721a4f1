"""Damaged shard folders, by seed: nothing ends in a traceback, and nothing is wrong in silence.

What is read of a damaged folder equals what was stored, or a word is said: the reader refuses the
folder or names the sample, or `verify` finds a problem. Where checksums were made right after the
change ("sealed"), a report's words or an image's pixels may be anything: then only the first holds.
"""

from __future__ import annotations

import os
import resource
import shutil
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import TypeAlias

import pytest

from data_shards.checking.preview import draw_preview
from data_shards.checking.verify import verify_shards
from data_shards.errors import InputError
from data_shards.records.study import SPLITS
from distributed_pretrain.data.quarantine import BadSampleError
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import ShardSplit
from tests.distributed_pretrain.data.one_sample import load_sample
from tests.fuzz.damages import damage_bytes, damage_json, seed_of_the_day
from tests.fuzz.sealing import reseal, reseal_indexes, rewrite_members
from tests.fuzz.sound_shards import write_sound_shards

QUICK, ALL = 6, 90
MOST_SECONDS, MOST_BYTES_MORE = 10.0, 400 * 2**20
# By split and key: a digest of record and pixels; under "statistics" what images are scaled by.
Stored: TypeAlias = dict[tuple[str, str], str]
Damage: TypeAlias = Callable[[Path, Random], str]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sound_shards(tmp_path_factory.mktemp("sound"))


@pytest.fixture(scope="module")
def whole(sound: Path) -> Stored:
    """What is stored."""
    stored, said = read(sound)
    assert len(stored) == 10 + len(SPLITS)
    assert not said
    return stored


def read(folder: Path) -> tuple[Stored, bool]:
    """What the reader gives of all splits, and whether it said a word. Raises what it raises."""
    data = DataConfig(shards=folder, global_batch=2, views="frontal_lateral")
    stored: Stored = {}
    said = False
    for split in SPLITS:
        try:
            samples = ShardSplit(folder, split, "lovt")
        except InputError as error:
            said = "\n" not in str(error)
            continue
        statistics = (samples.manifest.pixel_mean, samples.manifest.pixel_std)
        stored["statistics", split] = repr(statistics)
        for position in range(len(samples)):
            try:
                sample = load_sample(samples, data, position=position)
            except BadSampleError as error:
                said = error.shard in str(error)
                continue
            digest = sha256(sample.record.to_json() + sample.frontal.pixels.tobytes())
            if sample.lateral is not None:
                digest.update(sample.lateral.pixels.tobytes())
            place = (split, samples.key(position))
            assert place not in stored, "a sample was read twice"
            stored[place] = digest.hexdigest()
    return stored, said


def verify_says(folder: Path) -> bool:
    try:
        return bool(verify_shards(folder, workers=1).problems)
    except InputError:
        return True


def some_file(folder: Path, random: Random, pattern: str = "*") -> Path:
    return random.choice(sorted(path for path in folder.glob(pattern) if path.is_file()))


def bytes_of_a_file(folder: Path, random: Random) -> str:
    path = some_file(folder, random, random.choice(("*.tar", "*.json")))
    what, content = damage_bytes(path.read_bytes(), random)
    path.write_bytes(content)
    return f"{path.name}: {what}"


def a_value_of_the_manifest(folder: Path, random: Random) -> str:
    path = folder / "manifest.json"
    what, content = damage_json(path.read_bytes(), random)
    path.write_bytes(content)
    return f"{path.name}: {what}"


def a_value_of_a_sealed_index(folder: Path, random: Random) -> str:
    path = some_file(folder, random, "*.index.json")
    what, content = damage_json(path.read_bytes(), random)
    path.write_bytes(content)
    reseal_indexes(folder)
    return f"{path.name}, sealed: {what}"


def a_file_in_another_s_place(folder: Path, random: Random) -> str:
    """Exchanged, copied over, gone, a folder, a link to nothing, a pipe."""
    kind = random.choice(("*.tar", "*.index.json", "*.json"))
    one, other = some_file(folder, random, kind), some_file(folder, random, kind)
    what = random.choice(("copied", "gone", "folder", "link", "pipe", "exchanged"))
    content = one.read_bytes()
    if what == "exchanged":
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)
    elif what == "copied":
        other.write_bytes(content)
    else:
        one.unlink()
        if what == "folder":
            one.mkdir()
        elif what == "link":
            one.symlink_to("nowhere")
        elif what == "pipe":
            os.mkfifo(one)
    return f"{one.name} and {other.name}: {what}"


def a_sealed_member(folder: Path, random: Random) -> str:
    """A record's value, or bytes of any member, with all checksums right."""
    tar = some_file(folder, random, "*.tar")
    with tarfile.open(tar) as archive:
        names = archive.getnames()
    suffix = random.choice((".json", ".json", ".jpg", ".png"))
    chosen = random.choice([name for name in names if name.endswith(suffix)] or names)
    done: list[str] = []

    def change(name: str, payload: bytes) -> bytes | None:
        if name != chosen:
            return payload
        if random.random() < 0.05:
            done.append("left out")
            return None
        by_value = name.endswith(".json") and random.random() < 0.7
        what, content = (damage_json if by_value else damage_bytes)(payload, random)
        done.append(what)
        return content

    rewrite_members(folder, tar.name, change)
    return f"{tar.name}, {chosen}, sealed: {done[0]}"


def bytes_of_a_sealed_tar(folder: Path, random: Random) -> str:
    """Headers too, and offsets that no longer hold."""
    tar = some_file(folder, random, "*.tar")
    what, content = damage_bytes(tar.read_bytes(), random)
    tar.write_bytes(content)
    reseal(folder)
    return f"{tar.name}, sealed: {what}"


def a_sealed_index_with_counts(folder: Path, random: Random) -> str:
    what = a_value_of_a_sealed_index(folder, random)
    with suppress(AttributeError, LookupError, RecursionError, TypeError, ValueError):
        reseal(folder)
    return f"{what} (counts too)"


NOTHING_ELSE: tuple[Damage, ...] = (
    bytes_of_a_file,
    a_value_of_the_manifest,
    a_value_of_a_sealed_index,
    a_file_in_another_s_place,
)
ANY_CONTENT: tuple[Damage, ...] = (
    a_sealed_member,
    bytes_of_a_sealed_tar,
    a_sealed_index_with_counts,
)


def check(sound: Path, whole: Stored, folder: Path, damage: Damage, seed: str) -> None:
    shutil.copytree(sound, folder)
    what = f"seed {seed}: {damage(folder, Random(f'{damage.__name__} {seed}'))}"
    started = time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        stored, said = read(folder)
        problems = verify_says(folder)
        with suppress(InputError, OSError):
            draw_preview(folder, split="train", samples=1, sheet=folder / "sheet.png")
    except Exception as error:
        raise AssertionError(f"{what}: a traceback") from error
    assert time.process_time() - started < MOST_SECONDS, f"{what}: too slow"
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < MOST_BYTES_MORE, f"{what}: too much memory"
    if damage in NOTHING_ELSE:
        assert stored == whole or said or problems, f"{what}: other samples, and no word"
        # Whatever was said: what was read is what was stored.
        read_alike = [key for key in stored.keys() & whole.keys() if key[0] != "statistics"]
        wrong = [key for key in read_alike if stored[key] != whole[key]]
        assert not wrong, f"{what}: {wrong} read as they were not stored"
    shutil.rmtree(folder)


@pytest.fixture(params=NOTHING_ELSE + ANY_CONTENT, ids=lambda damage: damage.__name__)
def damage(request: pytest.FixtureRequest) -> Damage:
    chosen: Damage = request.param
    return chosen


@pytest.mark.parametrize("seed", range(QUICK))
def test_damage_ends_in_the_stored_samples_or_in_a_word(
    sound: Path, whole: Stored, tmp_path: Path, damage: Damage, seed: int
) -> None:
    check(sound, whole, tmp_path / "shards", damage, str(seed))


@pytest.mark.slow
def test_the_damage_of_the_day(
    sound: Path,
    whole: Stored,
    tmp_path: Path,
    damage: Damage,
    capsys: pytest.CaptureFixture[str],
) -> None:
    day = seed_of_the_day()
    with capsys.disabled():
        print(f" {damage.__name__}: FUZZ_SEED={day}", end="", flush=True)
    for number in range(ALL):
        check(sound, whole, tmp_path / "shards", damage, f"{day}/{number}")
