"""Files of several runs, or of one run twice, in one folder: the one that is wrong is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_shards.errors import InputError
from distributed_pretrain.__main__ import main
from distributed_pretrain.pretrain.settings import figures_of_run
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.step_folders import step_folders
from tests.tiny import short_run as short

pytestmark = pytest.mark.xdist_group("short_run")


def change(path: Path, **values: object) -> None:
    """Values of a JSON object; of a checkpoint's state those of its identity."""

    def changed(payload: bytes) -> bytes:
        document: dict[str, Any] = json.loads(payload)
        inner = document["identity"] if path.name == "state.json" else document
        inner.update(values)
        return json.dumps(document).encode()

    short.rewrite(path, changed)


OTHER_TOKENIZER = {"tokenizer.json": "0" * 64, "tokenizer_config.json": "1" * 64}
FOREIGN: dict[str, dict[str, object]] = {
    "of another run": {"run": "f" * 32},
    "of another run, which saved nothing": {"run": "f" * 32, "has_saved": False},
    "of another run with another tokenizer": {"run": "f" * 32, "tokenizer": OTHER_TOKENIZER},
    "with another tokenizer": {"tokenizer": OTHER_TOKENIZER},
    "of another run without tokenizer": {"run": "f" * 32, "tokenizer": {}},
}


@pytest.mark.parametrize("values", FOREIGN.values(), ids=FOREIGN)
def test_an_identity_of_another_run_is_named_and_may_be_deleted(
    values: dict[str, object], run: Path, tiny_profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = json.loads((run / "identity.json").read_text())
    change(run / "identity.json", **values)
    before = short.contents(run)
    assert short.train(tiny_profile, run) == 2
    line = short.the_error(capsys.readouterr().err)
    assert "identity.json: is of another run than all 3 checkpoints beside it" in line
    assert short.contents(run) == before
    (run / "identity.json").unlink()  # as it says
    with short.started(tiny_profile, run) as trainer:
        assert trainer.state.step == 5
    assert json.loads((run / "identity.json").read_text()) == wanted


def test_an_identity_of_another_tokenizer_is_named_by_evaluate(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(run / "identity.json", tokenizer=OTHER_TOKENIZER)
    assert main(["evaluate", str(run), "split=validate"]) == 2
    line = short.the_error(capsys.readouterr().err)
    assert "identity.json: is of another tokenizer than the run's" in line


def test_checkpoints_of_several_runs_are_not_the_identitys_fault(
    run: Path, tiny_profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, folder in enumerate(step_folders(run / "checkpoints")):
        change(folder / "state.json", run=f"{number}" * 32)
    assert short.train(tiny_profile, run) == 2
    line = short.the_error(capsys.readouterr().err)
    assert "no checkpoint to go on from (checkpoint" in line
    assert "of another run of the same config" in line


def test_a_config_of_another_run_is_named_and_may_be_deleted(
    run: Path, tiny_profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(wanted.replace("seed: 12345", "seed: 7"))
    assert short.train(tiny_profile, run) == 2
    line = short.the_error(capsys.readouterr().err)
    assert "config.yaml: is of another run than all 3 checkpoints beside it" in line
    assert "delete this one" not in line
    (run / "config.yaml").unlink()
    with short.started(tiny_profile, run) as trainer:
        assert trainer.state.step == 5
    assert short.train(tiny_profile, run, "seed=8") == 2
    assert "holds a run of another config: seed" in short.the_error(capsys.readouterr().err)


def copy_beside(run: Path) -> Path:
    """A step of another run, which lies beside this one."""
    other = shutil.copytree(run, run.parent / "other", symlinks=True)
    return other / "checkpoints" / "step_00000004"


STRAY = {
    "into another run": "{other}/step_00000004",
    "by way of another run": "../../other/checkpoints/step_00000004",
    "nowhere": "/nowhere/step_00000004",
    "itself": "best",
    "the other link": "last",
    "the run": "..",
    "a folder within a step": "step_00000004/step_00000004",
    "a step set aside": "step_00000004.damaged",
}


@pytest.mark.parametrize("target", STRAY.values(), ids=STRAY)
def test_a_link_to_what_is_no_checkpoint_of_the_run_is_refused(
    target: str, run: Path, tiny_profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not taken for the checkpoint of the run that is called alike."""
    best = run / "checkpoints" / "best"
    best.unlink()
    best.symlink_to(target.format(other=copy_beside(run).parent))
    said = f"{best}: leads to {best.readlink()}, which is no checkpoint of this run"
    assert short.train(tiny_profile, run) == 2
    assert said in short.the_error(capsys.readouterr().err)
    assert main(["evaluate", str(run), "checkpoint=best", "split=validate"]) == 2
    assert said in short.the_error(capsys.readouterr().err)
    with pytest.raises(InputError, match="which is no checkpoint of this run"):
        figures_of_run(None, run)  # type: ignore[arg-type]


def test_a_last_that_leads_out_is_refused_too(
    run: Path, tiny_profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = run / "checkpoints" / "last"
    last.unlink()
    last.symlink_to(copy_beside(run))
    assert short.train(tiny_profile, run) == 2
    assert f"{last}: leads to {last.readlink()}" in short.the_error(capsys.readouterr().err)


def test_links_by_whole_paths_and_checkpoints_on_another_disk_are_good(
    run: Path, tiny_profile: Path
) -> None:
    scratch = run.parent / "scratch"
    (run / "checkpoints").rename(scratch)
    (run / "checkpoints").symlink_to(scratch)
    for link in (scratch / "last", scratch / "best"):
        target = run / "checkpoints" / link.readlink()
        link.unlink()
        link.symlink_to(target)
    assert RunFolder(run).checkpoint("best").name in {"step_00000003", "step_00000004"}
    with short.started(tiny_profile, run) as trainer:
        assert trainer.state.step == 5


TWICE: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "the whole file": (lambda lines: lines * 2, "lines 7 to 12"),
    "three times": (lambda lines: lines * 3, "lines 7 to 18"),
    "each line": (lambda lines: [each for each in lines for _ in range(2)], "lines 2 to 2"),
    "an older copy at its end": (lambda lines: lines + lines[:2], "lines 7 to 8"),
    "an older copy, and more": (
        lambda lines: [*lines[:4], *lines[:2], *lines[4:]],
        "lines 5 to 6",
    ),
    "the last line": (lambda lines: [*lines, lines[-1]], "lines 7 to 7"),
    "backwards": (lambda lines: lines[::-1], "lines 2 to 6"),
    "validation before training": (
        lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]],
        "lines 4 to 4",
    ),
}


@pytest.mark.parametrize(("copy", "where"), TWICE.values(), ids=TWICE)
def test_metrics_that_repeat_or_go_back_are_refused_by_all_who_read_them(
    copy: Callable[[list[str]], list[str]],
    where: str,
    run: Path,
    tiny_profile: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 6  # five steps, and a validation after the third
    path.write_text("".join(copy(lines)))
    before = short.contents(run)
    reader = RunFolder(run)
    said = rf"metrics\.jsonl, {where}: repeat what stands before them, or go back"
    for read in (reader.read_metrics, reader.progress, reader.best_validation):
        with pytest.raises(InputError, match=said):
            read()
    if where in ("lines 7 to 12", "lines 5 to 6"):
        assert short.train(tiny_profile, run) == 2
        assert f"metrics.jsonl, {where}: repeat" in short.the_error(capsys.readouterr().err)
        assert short.contents(run) == before


def test_starts_that_stand_there_twice_count_once(run: Path) -> None:
    starts = run / "starts.jsonl"
    starts.write_text(starts.read_text() * 3)
    assert RunFolder(run).note_start(step=5, total_steps=6) == 1
