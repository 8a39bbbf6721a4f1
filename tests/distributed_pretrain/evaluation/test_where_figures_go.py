"""Where `evaluate` writes: found out before the work, told apart by shards, and nothing lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from data_shards.errors import InputError
from distributed_pretrain.__main__ import main
from distributed_pretrain.evaluation import evaluate
from distributed_pretrain.evaluation.settings import EvaluateConfig
from distributed_pretrain.measures.metric import write_figures
from distributed_pretrain.run_folder.folder import RunFolder

pytestmark = pytest.mark.xdist_group("short_run")


@pytest.fixture
def run(short_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run whose evaluation takes no time."""
    found = SimpleNamespace(metrics={"samples": 20.0})
    monkeypatch.setattr(evaluate, "evaluate_run", lambda *_, **__: found)
    return shutil.copytree(short_run, tmp_path / "run", symlinks=True)


@pytest.mark.parametrize("said", ["last", "last/", "./last", "../checkpoints/last", "absolute"])
def test_a_checkpoint_may_be_given_as_a_path(said: str, run: Path) -> None:
    said = str(run / "checkpoints" / "last") if said == "absolute" else said
    assert main(["evaluate", str(run), f"checkpoint={said}"]) == 0
    assert (run / "evaluation_test_last.json").exists()


@pytest.mark.parametrize(
    "said", ["../../elsewhere/checkpoints/last", "/etc/last", "..", "lost", "a/b", "step_1"]
)
def test_what_is_no_checkpoint_of_the_run_is_refused(
    said: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(run.rglob("*"))
    assert main(["evaluate", str(run), f"checkpoint={said}"]) == 2
    assert "no checkpoint of" in capsys.readouterr().err.splitlines()[-1]
    assert sorted(run.rglob("*")) == before


def test_where_nothing_can_be_written_is_said_before_the_work(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "evaluation_test_best.json").mkdir()
    monkeypatch.setattr(evaluate, "evaluate_run", lambda *_: pytest.fail("worked in vain"))
    assert main(["evaluate", str(run)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "evaluation_test_best.json: a folder stands where a file is to be written" in last

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(evaluate, "try_to_write", refuse)
    assert main(["evaluate", str(run)]) == 2
    assert "or pass output=FILE.json" in capsys.readouterr().err.splitlines()[-1]


def test_figures_may_go_elsewhere(run: Path, tmp_path: Path) -> None:
    assert main(["evaluate", str(run), f"output={tmp_path / 'new' / 'mine.json'}"]) == 0
    assert json.loads((tmp_path / "new" / "mine.json").read_text()) == {"samples": 20.0}
    assert not list(run.glob("evaluation_*"))


def test_figures_on_other_shards_have_a_name_of_their_own(run: Path, tmp_path: Path) -> None:
    own = Path(yaml.safe_load((run / "config.yaml").read_text())["data"]["shards"])
    moved = shutil.copytree(own, tmp_path / "moved")
    other = shutil.copytree(own, tmp_path / "other set")
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"licence": "another"}))
    names = [
        EvaluateConfig(shards=shards).results(RunFolder(run)).name
        for shards in (None, own, moved, other)
    ]
    assert names[:3] == ["evaluation_test_best.json"] * 3
    assert names[3].startswith("evaluation_test_best_on_other-set_")


def test_other_figures_are_kept_and_printed_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "evaluation.json"
    for figures in ({"samples": 1.0}, {"samples": 1.0}, {"samples": 2.0}):
        write_figures(figures, path)
    assert json.loads(path.read_text()) == {"samples": 2.0}
    assert json.loads((tmp_path / "evaluation.before.json").read_text()) == {"samples": 1.0}
    assert capsys.readouterr().err.count("other figures were there") == 1
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_figures({"samples": 3.0}, path)
    assert "samples   3.0000" in capsys.readouterr().out


def test_a_checkpoint_of_another_run_is_not_evaluated(
    short_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(short_run, tmp_path / "run", symlinks=True)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("seed: 12345", "seed: 7"))
    assert main(["evaluate", str(run), "split=validate"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "of another run: seed (12345 then, 7 now)" in said


def test_a_name_with_a_zero_in_it_is_refused(short_run: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint of"):
        RunFolder(short_run).checkpoint("last\0")


@pytest.mark.parametrize("taken", ["config.yaml", "checkpoints/last/state.json"])
def test_figures_take_no_other_file_s_place(taken: str, run: Path) -> None:
    before = (run / taken).read_bytes()
    assert main(["evaluate", str(run), f"output={run / taken}"]) == 2
    assert (run / taken).read_bytes() == before
