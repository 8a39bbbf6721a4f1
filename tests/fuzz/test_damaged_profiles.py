"""Profiles with any damage: read as they stand, or refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest

from data_shards.building.settings import ShardsConfig
from data_shards.errors import InputError
from data_shards.profiles import Config, load_profile
from distributed_pretrain.experiments.settings import ComparisonConfig
from distributed_pretrain.pretrain.settings import PretrainConfig
from tests.fuzz.damages import DEEP, VALUES, damage_bytes, seed_of_the_day
from tests.paths import CONFIGS

QUICK, ALL = 60, 400
MOST_LETTERS = 2000
KINDS: dict[str, type[Config]] = {
    "pretrain": PretrainConfig,
    "shards": ShardsConfig,
    "compare": ComparisonConfig,
}
LINES = (
    "- a",
    "  x: 1",
    "&a *a",
    "<<: {seed: 1}",
    "!!python/object:os.system ls",
    "\t",
    "? a",
    "}",
)


def damaged_text(text: bytes, random: Random) -> tuple[str, bytes]:
    """Another value, a line more, less or twice, something deep, or any bytes."""
    lines = text.split(b"\n")
    place, kind = random.randrange(len(lines)), random.randrange(6)
    if kind == 0:
        return damage_bytes(text, random)
    if kind == 1 and b":" in lines[place]:
        value = str(random.choice(VALUES))[:200]
        lines[place] = lines[place].split(b":")[0] + b": " + value.encode()
    elif kind == 2:
        lines.insert(place, random.choice(LINES).encode())
    elif kind == 3:
        del lines[place]
    elif kind == 4:
        lines.insert(place, lines[place])
    else:
        lines[place] += b" " + random.choice([b"[", b"{a: "]) * DEEP
    return f"line {place + 1}, kind {kind}", b"\n".join(lines)


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all profiles, since one may extend another."""
    return Path(shutil.copytree(CONFIGS, tmp_path_factory.mktemp("configs") / "configs"))


def check(configs: Path, seed: str) -> None:
    random = Random(seed)
    kind = random.choice(list(KINDS))
    path = random.choice(sorted((configs / kind).glob("*.yaml")))
    sound = path.read_bytes()
    what, content = damaged_text(sound, random)
    path.write_bytes(content)
    said = ""
    try:
        load_profile(KINDS[kind], path, ())
    except InputError as error:
        said = str(error)
    except BaseException as error:
        error.add_note(f"seed {seed}: {path.name}: {what}")
        raise
    finally:
        path.write_bytes(sound)
    assert "\n" not in said, f"seed {seed}: {what}"
    assert len(said) < MOST_LETTERS, f"seed {seed}: {what}"


def test_damaged_profiles_are_read_or_refused_in_a_line(configs: Path) -> None:
    for number in range(QUICK):
        check(configs, f"0/{number}")


@pytest.mark.slow
def test_profiles_of_the_day(configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    day = seed_of_the_day()
    with capsys.disabled():
        print(f" FUZZ_SEED={day}", end="", flush=True)
    for number in range(ALL):
        check(configs, f"{day}/{number}")
