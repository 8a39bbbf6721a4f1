"""A run's folder that is taken away, or taken twice, while the run trains in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.processes import InterruptionFlag
from distributed_pretrain.run_folder.folder import RunFolder
from tests.tiny import short_run as short

pytestmark = pytest.mark.xdist_group("short_run")


def rename(run: Path) -> None:
    run.rename(run.with_name("elsewhere"))


def replace_by_a_copy(run: Path) -> None:
    rename(run)
    shutil.copytree(run.with_name("elsewhere"), run, symlinks=True)


def have_another_process_take_the_lock(run: Path) -> None:
    (run / "lock").unlink()
    (run / "lock").write_text("process 1 on elsewhere")


TAKEN: dict[Callable[[Path], object], str] = {
    rename: "moved or deleted while it was in use",
    shutil.rmtree: "moved or deleted while it was in use",
    replace_by_a_copy: "moved or deleted while it was in use",
    have_another_process_take_the_lock: "another process holds the folder since",
}


@pytest.mark.parametrize(("take", "said"), TAKEN.items())
def test_a_folder_that_is_taken_away_is_noticed_before_the_next_save(
    take: Callable[[Path], object], said: str, run: Path, tiny_profile: Path
) -> None:
    with short.started(tiny_profile, run) as trainer, InterruptionFlag() as interruption:
        take(run)
        with pytest.raises(InputError, match=said):
            trainer.fit(interruption)
    assert not (run / "checkpoints" / "step_00000006").exists()


def test_a_deleted_lock_lets_nobody_in(
    run: Path,
    tiny_profile: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("distributed_pretrain.run_folder.folder.LOCK_PATIENCE_SECONDS", 0.0)
    with RunFolder(run).locked():
        (run / "lock").unlink()
        before = short.contents(run)
        assert short.train(tiny_profile, run) == 2
        assert f"{run}: in use by " in short.the_error(capsys.readouterr().err)
        assert short.contents(run) == before
