"""Damaged run folders, by seed: nothing ends in a traceback, and nothing is wrong in silence.

A start on a damaged folder is at weights, moments, counters and a tokenizer that the run had, with
a word where they are not the newest; or it is refused in one line. Where checksums were made right
after the change ("sealed"), numbers may be any: then it must only not crash, with a step taken.
"""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import pytest
import torch
import yaml
from torch import Tensor

from data_shards.errors import InputError, RunError
from distributed_pretrain.pretrain.build import load_method
from distributed_pretrain.run_folder.checkpoint import load_checkpoint
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.step_folders import step_folder, step_folders
from distributed_pretrain.training.loop import Trainer
from tests.fuzz.damages import damage_bytes, damage_json, seed_of_the_day
from tests.tiny import short_run as short

QUICK, ALL = 4, 140
MOST_SECONDS, MOST_BYTES_MORE = 30.0, 400 * 2**20
NEWEST = f"checkpoints/step_{short.SAVED:08d}"
SEALED_FILES = ("state.json", "optimizer.json", "optimizer.safetensors", "model.safetensors")
FILES = (
    *(f"{NEWEST}/{name}" for name in (*SEALED_FILES, "COMPLETE")),
    *("identity.json", "config.yaml", "metrics.jsonl", "starts.jsonl"),
    *("tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"),
)
PATHS = (*FILES, NEWEST, "checkpoints/last", "checkpoints/best", "checkpoints", "tokenizer")
Damage: TypeAlias = Callable[[Path, Random], str]

pytestmark = pytest.mark.xdist_group("short_run")


@pytest.fixture(scope="module")
def sound(short_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short.cut_back(short_run, tmp_path_factory.mktemp("sound") / "run")


@pytest.fixture(scope="module")
def other(sound: Path, tiny_profile: Path) -> Path:
    """A run of another seed and config."""
    folder = sound.parent / "other"
    assert short.train(tiny_profile, folder, "seed=7", "method.embedding_dim=8") == 0
    return folder


@pytest.fixture(autouse=True)
def _asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))


def damaged_file(run: Path, random: Random) -> str:
    """Bytes of a file, or a value of a JSON document; checksums are left as they were."""
    name = random.choice(FILES)
    path = run / name
    is_document = path.suffix == ".json" or path.name == "COMPLETE"
    change = random.choice((damage_bytes, damage_json)) if is_document else damage_bytes
    what, payload = change(path.read_bytes(), random)
    path.write_bytes(payload)
    return f"{name}: {what}"


def sealed_file(run: Path, random: Random) -> str:
    """The same in a checkpoint, and its checksum made right."""
    path = run / NEWEST / random.choice(SEALED_FILES)
    before = path.read_bytes()
    change = random.choice((damage_bytes, damage_json)) if path.suffix == ".json" else damage_bytes
    # Of tensors the header, which says what they are, as often as the numbers.
    header = len(before) if path.suffix == ".json" or random.random() < 0.5 else 4000
    what, payload = change(before[:header], random)
    short.rewrite(path, lambda _: payload + before[header:])
    return f"{path.name}, sealed: {what}"


def remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


def misplaced(run: Path, random: Random, *, other: Path) -> str:
    """A file, folder or link that is gone, something else, or of another checkpoint or run."""
    name = random.choice(PATHS)
    path = run / name
    twin = other / name
    earlier = step_folder(run / "checkpoints", short.SAVED - 1)
    how = random.choice(("gone", "a folder", "a pipe", "a dangling link", "text", "of another run"))
    if NEWEST in name and random.random() < 0.3:
        how, twin = "of an earlier step", earlier / path.name if name != NEWEST else earlier
    remove(path)
    if how == "a folder":
        path.mkdir()
    elif how == "a pipe":
        os.mkfifo(path)
    elif how == "a dangling link":
        path.symlink_to("/nowhere/step_00000003")
    elif how == "text":
        path.write_text(random.choice(("", "step_00000004", "\x00", "{}")))
    elif how.startswith("of "):
        (shutil.copytree if twin.is_dir() else shutil.copyfile)(twin, path)
    return f"{name}: {how}"


def tensors_in(tree: Any, path: str = "") -> dict[str, Tensor]:
    """The tensors of a state, by where they are."""
    if isinstance(tree, Tensor):
        return {path: tree.clone()}
    inside = tree.items() if isinstance(tree, dict) else ()
    return {k: v for key, each in inside for k, v in tensors_in(each, f"{path}.{key}").items()}


def assert_as_the_run_was(trainer: Trainer, sound: Path, said: str, what: str) -> None:
    """At a step that the run saved, with all that it had there."""
    step = trainer.state.step
    assert step <= short.SAVED, what
    assert step == short.SAVED or "warning: checkpoint" in said, f"{what}: at {step}, no word"
    saved = load_checkpoint(step_folder(sound / "checkpoints", step))
    assert vars(trainer.state) == vars(saved.state), what
    for now, then in (
        (trainer.engine.model_state(), saved.model),
        (trainer.engine.optimizer_state()["state"], saved.optimizer["state"]),
    ):
        found, wanted = tensors_in(now), tensors_in(then)
        assert found.keys() == wanted.keys(), what
        assert all(torch.equal(found[name], wanted[name]) for name in wanted), what
    tokenizer = Path("tokenizer") / "tokenizer.json"
    assert (trainer.run.path / tokenizer).read_bytes() == (sound / tokenizer).read_bytes(), what


def try_one(
    sound: Path,
    profile: Path,
    folder: Path,
    seed: int,
    damage: Damage,
    capsys: pytest.CaptureFixture[str],
) -> bool:
    """Damage a copy, start on it, and look at it as other verbs do; whether it could be started."""
    remove(folder)
    shutil.copytree(sound, folder, symlinks=True)
    what = f"seed {seed}: {damage(folder, Random(seed))}"
    sealed = "sealed" in what
    began, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    capsys.readouterr()
    said = ""
    try:
        with short.started(profile, folder) as trainer:
            if sealed:
                trainer.step(trainer.loader.batches(trainer.state.samples_consumed))
            else:
                assert_as_the_run_was(trainer, sound, capsys.readouterr().err, what)
    except (InputError, RunError, OSError) as error:
        said = str(error)
    except BaseException as error:
        error.add_note(what)
        raise
    assert "\n" not in said, f"{what}: {said}"
    look(folder, what)
    assert time.process_time() - began < MOST_SECONDS, f"{what}: too slow"
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    assert more * 1024 < MOST_BYTES_MORE, f"{what}: took {more} kB"
    return not said


def look(folder: Path, what: str) -> None:
    """What launchers, tables and `evaluate` read."""
    run, said = RunFolder(folder), ""
    for verb in (run.progress, run.saved_step, partial(load_method, folder, "best")):
        try:
            verb()
        except (InputError, OSError) as error:
            said = str(error)
        except BaseException as error:
            error.add_note(what)
            raise
        assert "\n" not in said, f"{what}: {said}"


def try_many(
    seeds: range,
    sound: Path,
    other: Path,
    profile: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kinds: tuple[Damage, ...] = (damaged_file, sealed_file, partial(misplaced, other=other))
    for kind in kinds:
        done = [try_one(sound, profile, tmp_path / "run", seed, kind, capsys) for seed in seeds]
        assert any(done)
        # Where checksums are right there is always a checkpoint before, which is used.
        assert all(done) == (kind is sealed_file)


def test_a_sound_run_is_as_it_was(
    sound: Path, tiny_profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(sound, tmp_path / "run", symlinks=True)
    with short.started(tiny_profile, folder) as trainer:
        assert_as_the_run_was(trainer, sound, capsys.readouterr().err, "nothing")
    assert len(step_folders(folder / "checkpoints")) >= 3
    assert yaml.safe_load((folder / "config.yaml").read_text())["seed"] == 12345


def test_damaged_runs_are_refused_or_as_they_were(
    sound: Path,
    other: Path,
    tiny_profile: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    try_many(range(QUICK), sound, other, tiny_profile, tmp_path, capsys)


@pytest.mark.slow
def test_many_damaged_runs_are_refused_or_as_they_were(
    sound: Path,
    other: Path,
    tiny_profile: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    day = seed_of_the_day()
    with capsys.disabled():
        print(f"\nFUZZ_SEED={day}")
    first = day * 1000
    try_many(range(first, first + ALL), sound, other, tiny_profile, tmp_path, capsys)
