"""Runs whose folders were damaged: gone on with as if nothing had happened, or one clear line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from distributed_pretrain.run_folder.step_folders import step_folders
from tests.tiny import short_run as short

pytestmark = pytest.mark.xdist_group("short_run")


@pytest.fixture(scope="module")
def other_run(tiny_profile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of another seed."""
    folder = tmp_path_factory.mktemp("other") / "run"
    assert short.train(tiny_profile, folder, "seed=7") == 0
    return folder


def newest(run: Path) -> Path:
    return step_folders(run / "checkpoints")[-1]


def set_value(path: Path, *keys: str, value: object) -> None:
    """Change one value of a checkpoint's JSON file, with its checksum."""

    def change(payload: bytes) -> bytes:
        document = inner = json.loads(payload)
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        return json.dumps(document).encode()

    short.rewrite(path, change)


def pipe_in_place_of(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


FALLS_BACK: dict[str, tuple[Callable[[Path], object], str]] = {
    "all of it is gone": (shutil.rmtree, "is gone"),
    "marker is a list": (lambda step: (step / "COMPLETE").write_text("[]"), "COMPLETE is damaged"),
    "marker is deep": (
        lambda step: (step / "COMPLETE").write_text("[" * 100_000),
        "COMPLETE is damaged",
    ),
    "marker is a pipe": (
        lambda step: pipe_in_place_of(step / "COMPLETE"),
        "no COMPLETE marker",
    ),
    "state is of another shape": (
        lambda step: short.rewrite(step / "state.json", lambda _: b"[]"),
        "state.json is damaged",
    ),
    "state is of a later release": (
        lambda step: set_value(step / "state.json", "state", "momentum", value=1),
        "state.momentum",
    ),
    "step as text": (
        lambda step: set_value(step / "state.json", "state", "step", value="5"),
        "state.step",
    ),
    "step of another folder": (
        lambda step: set_value(step / "state.json", "state", "step", value=4),
        "holds step 4 under the name step_00000005",
    ),
    "another run of the same config": (
        lambda step: set_value(step / "state.json", "identity", "run", value="f" * 32),
        "of another run of the same config",
    ),
    "another tokenizer": (
        lambda step: set_value(step / "state.json", "identity", "tokenizer", value={"a": "b"}),
        "made with another tokenizer",
    ),
}


@pytest.mark.parametrize(("damage", "complaint"), FALLS_BACK.values(), ids=FALLS_BACK)
def test_a_checkpoint_that_is_no_good_is_named_and_the_one_before_used(
    damage: Callable[[Path], object],
    complaint: str,
    run: Path,
    short_run: Path,
    tiny_profile: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(newest(run))
    assert short.train(tiny_profile, run) == 0
    said = capsys.readouterr().err
    assert complaint in said
    assert "going on from step_00000004" in said
    assert short.same_weights(run, short_run)


def test_a_checkpoint_of_another_run_is_not_trained_on(
    run: Path,
    other_run: Path,
    short_run: Path,
    tiny_profile: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.rmtree(newest(run))
    shutil.copytree(
        other_run / "checkpoints" / "step_00000005", newest(run).parent / "step_00000005"
    )
    assert short.train(tiny_profile, run) == 0
    assert "of another run: seed (7 then, 12345 now): not used" in capsys.readouterr().err
    assert short.same_weights(run, short_run)


def lose_all(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")


def leave_a_dangling_link(run: Path) -> None:
    lose_all(run)
    (run / "checkpoints").symlink_to("/nowhere/checkpoints")


def put_a_file_there(run: Path) -> None:
    lose_all(run)
    (run / "checkpoints").write_text("moved to the archive")


def cut_all(run: Path) -> None:
    for step in step_folders(run / "checkpoints"):
        (step / "model.safetensors").write_bytes(b"")


def lose_all_and_the_identity(run: Path) -> None:
    lose_all(run)
    (run / "identity.json").unlink()


LOST = {
    lose_all: "a run of 5 steps, but no checkpoint to go on from",
    leave_a_dangling_link: "checkpoints: cannot be listed (No such file or directory)",
    put_a_file_there: "checkpoints: cannot be listed (Not a directory)",
    cut_all: "model.safetensors does not match its checksum",
    lose_all_and_the_identity: "a run of 5 steps, but no checkpoint to go on from",
}


@pytest.mark.parametrize(("damage", "said"), LOST.items())
def test_progress_is_never_begun_anew_unasked(
    damage: Callable[[Path], None],
    said: str,
    run: Path,
    tiny_profile: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(run)
    before = short.contents(run)
    assert short.train(tiny_profile, run) == 2
    line = short.the_error(capsys.readouterr().err)
    assert said in line
    assert "free some space" not in line
    assert short.contents(run) == before


def test_a_run_killed_before_its_first_checkpoint_begins_anew(
    run: Path, short_run: Path, tiny_profile: Path
) -> None:
    lose_all(run)
    identity = json.loads((run / "identity.json").read_text())
    (run / "identity.json").write_text(json.dumps(identity | {"has_saved": False}))
    assert short.train(tiny_profile, run) == 0
    assert short.same_weights(run, short_run)


@pytest.mark.parametrize("copy_as", ["folders", "text"])
def test_links_that_a_copy_changed_are_links_again(
    copy_as: str, run: Path, short_run: Path, tiny_profile: Path
) -> None:
    for link in (run / "checkpoints" / "last", run / "checkpoints" / "best"):
        target = link.resolve()
        link.unlink()
        if copy_as == "folders":
            shutil.copytree(target, link)
        else:
            link.write_text(target.name)
    best = (short_run / "checkpoints" / "best").resolve().name
    assert short.train(tiny_profile, run) == 0
    assert (run / "checkpoints" / "last").readlink().name == "step_00000006"
    assert (run / "checkpoints" / "best").readlink().name == best
    assert (run / "checkpoints" / best / "COMPLETE").exists()
    assert short.same_weights(run, short_run)


@pytest.mark.parametrize("name", ["last", "best"])
def test_what_stands_for_a_link_and_names_nothing_is_refused_before_training(
    name: str, run: Path, tiny_profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "checkpoints" / name).unlink()
    (run / "checkpoints" / name).write_text("?")
    assert short.train(tiny_profile, run) == 2
    assert f"checkpoints/{name}: neither a link to a checkpoint" in short.the_error(
        capsys.readouterr().err
    )


def test_a_step_folder_that_is_a_link_loses_its_link_only(
    run: Path, short_run: Path, tiny_profile: Path
) -> None:
    elsewhere = run.parent / "elsewhere"
    for step in step_folders(run / "checkpoints"):
        shutil.copytree(step, elsewhere / step.name)
        shutil.rmtree(step)
        step.symlink_to(elsewhere / step.name)
    before = short.contents(elsewhere)
    assert short.train(tiny_profile, run, "training.keep_checkpoints=1") == 0
    assert short.contents(elsewhere) == before
    assert len(step_folders(run / "checkpoints")) <= 2
    assert short.same_weights(run, short_run)


def test_a_lost_config_is_written_again_and_the_checkpoints_still_tell_whose_they_are(
    run: Path, short_run: Path, tiny_profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "config.yaml").write_text("")
    assert short.train(tiny_profile, run) == 2
    line = short.the_error(capsys.readouterr().err)
    assert "config.yaml: empty" in line
    assert "pass run_folder=" not in line
    (run / "config.yaml").unlink()
    assert short.train(tiny_profile, run, "seed=3") == 2
    assert "of another run: seed (12345 then, 3 now)" in short.the_error(capsys.readouterr().err)
    (run / "config.yaml").unlink()
    assert short.train(tiny_profile, run) == 0
    assert short.same_weights(run, short_run)


def test_a_lost_identity_is_that_of_the_newest_checkpoint(
    run: Path, short_run: Path, tiny_profile: Path
) -> None:
    wanted = json.loads((run / "identity.json").read_text())
    (run / "identity.json").write_text("[")
    assert short.train(tiny_profile, run) == 0
    assert json.loads((run / "identity.json").read_text()) == wanted
    assert short.same_weights(run, short_run)


def test_a_run_folder_that_holds_shards_is_refused(
    tiny_profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    assert short.train(tiny_profile, tmp_path) == 2
    assert "holds shards: choose another run_folder" in short.the_error(capsys.readouterr().err)
    assert [each.name for each in tmp_path.iterdir()] == ["manifest.json"]


def test_a_finished_run_is_complete_also_where_nobody_can_write(
    short_run: Path,
    tmp_path: Path,
    tiny_profile: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = shutil.copytree(short_run, tmp_path / "run", symlinks=True)
    before, opened = short.contents(run), os.open

    def read_only(path: str | Path, flags: int, *more: int, **others: int) -> int:
        if flags & os.O_CREAT and str(run) in str(path):
            raise OSError(30, "Read-only file system", str(path))
        return opened(path, flags, *more, **others)

    monkeypatch.setattr(os, "open", read_only)
    assert short.train(tiny_profile, run) == 0
    assert "already complete" in capsys.readouterr().err
    assert short.contents(run) == before
