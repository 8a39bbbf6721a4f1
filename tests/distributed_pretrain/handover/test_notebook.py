"""The notebook's cells, run one after the other on a tiny run in place of the quickstart's."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import torch

from distributed_pretrain.__main__ import main
from tests.paths import CONFIGS, DOCS

NOTEBOOK = json.loads((DOCS / "handover.ipynb").read_text())
SAID = ("its own first: ", "side the box", "studies without an effusion: ")
CELLS = ["".join(each["source"]) for each in NOTEBOOK["cells"] if each["cell_type"] == "code"]


@pytest.fixture
def here(tmp_path: Path, phantom_shards: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like the checkout after a quickstart, in its docs."""
    words = (
        *("pretrain", str(CONFIGS / "pretrain" / "phantom_lovt.yaml")),
        *(f"data.shards={phantom_shards}", "data.image_size_px=64"),
        f"run_folder={tmp_path / 'runs' / 'quickstart' / 'lovt'}",
        *("data.global_batch=4", "method.image_encoder.width=0.125", "training.max_steps=1"),
        *("training.validate_every_steps=1", "training.pictures=false"),
    )
    assert main(words) == 0
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    mpl.use("agg")
    return tmp_path


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """The value of its last line, as Jupyter shows it."""
    *lines, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        lines.append(last)
    exec(compile(ast.Module(lines, []), "cell", "exec"), names)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_the_notebook_runs_from_its_first_cell_to_its_last(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    shown = [run_cell(source, names) for source in CELLS]
    assert Path.cwd() == here
    assert shown[0][:2] == ("Lovt", 64)
    images, reports = len(names["images"]), len(names["reports"])
    assert images == reports > 1
    dim = names["image_vectors"].shape[1]
    assert shown[2] == ((images, dim), (reports, dim))
    heat, box = names["heat"], names["box"]
    assert heat.shape == names["images"][names["place"]].size[::-1]
    assert heat.isfinite().all()
    assert names["left"].get_title() == box.phrase
    assert len(names["right"].images) == 2
    assert names["scores"].shape == (images, 2)
    same, features = shown[-1]
    assert same is True
    assert features[0] == 2
    assert torch.isfinite(names["features"]).all()
    said = capsys.readouterr().out
    for each in SAID:
        assert each in said


def test_the_stored_outputs_are_those_of_its_cells() -> None:
    """Of the quickstart's run, in order and whole, with no path of the machine that ran it."""
    code = [each for each in NOTEBOOK["cells"] if each["cell_type"] == "code"]
    assert len(code) > 6
    assert [each["execution_count"] for each in code] == list(range(1, len(code) + 1))
    for cell in code:
        kinds = {each["output_type"] for each in cell["outputs"]}
        assert kinds
        assert kinds <= {"stream", "execute_result", "display_data"}
        assert {each.get("name", "stdout") for each in cell["outputs"]} == {"stdout"}
        # A cell that ends in a value shows one, and what prints has printed.
        *_, last = ast.parse("".join(cell["source"])).body
        is_print = isinstance(last, ast.Expr) and ast.unparse(last).startswith("print(")
        assert ("execute_result" in kinds) == (isinstance(last, ast.Expr) and not is_print)
        assert ("stream" in kinds) == ("print(" in "".join(cell["source"]))
    text = json.dumps([each["outputs"] for each in code])
    assert not re.search(r"(?<![\w.])/(tmp|home|root|work|usr|mnt|Users)/", text)
    assert sum("image/png" in each.get("data", {}) for c in code for each in c["outputs"]) == 1
    for said in SAID:
        assert said in text
