"""The papers' tables hold what they print, in their rows and columns, and ours beside it."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.profiles import load_profile
from distributed_pretrain.downstream.results import TaskResult
from distributed_pretrain.experiments.suites.claims import claims_told
from distributed_pretrain.experiments.suites.formats import (
    NOT_RUN,
    in_csv,
    in_html,
    in_latex,
    in_markdown,
    suite_page,
)
from distributed_pretrain.experiments.suites.settings import Claim, SuiteConfig
from distributed_pretrain.experiments.suites.tables import PublishedTable, filled, read_suite
from tests.paths import CONFIGS

FOLDER = CONFIGS / "downstream" / "tables"
TABLES = {path.stem: load_profile(PublishedTable, path) for path in sorted(FOLDER.glob("*.yaml"))}
TASK = "rsna_linear_100"


def result(*dices: float) -> TaskResult:
    data = {"fraction": 1.0, "shards": "runs/shards/rsna"}
    made_with = {"data": data, "training": {"best_metric": "dice"}}
    return TaskResult(
        made_with=made_with,
        encoder="checkpoint",
        learning_rate=1e-3,
        runs={str(seed): {"dice": dice} for seed, dice in enumerate(dices)},
    )


def test_the_18_tasks_and_the_classification_are_the_columns() -> None:
    columns = {name: [column.task for column in table.columns] for name, table in TABLES.items()}
    assert {name: len(each) for name, each in columns.items()} == {
        "lovt_table_1": 9,
        "lovt_table_2": 9,
        "limitr_supplement_table_1": 6,
    }
    suite = load_profile(SuiteConfig, CONFIGS / "downstream" / "paper.yaml", ["encoder=random"])
    assert {task.name for task in suite.tasks} == {t for each in columns.values() for t in each}


def test_what_the_paper_says_of_its_own_figures_is_so() -> None:
    """LoVT is the best method on 10 of 18 tasks (section 4.2), over all pre-training settings."""
    wins = 0
    for name in ("lovt_table_1", "lovt_table_2"):
        table = TABLES[name]
        for number in range(len(table.columns)):
            best = max(row.published[number][0] for row in table.rows)
            winners = {row.title for row in table.rows if row.published[number][0] == best}
            wins += winners == {"LoVT"}
    assert wins == 10


def test_our_figures_stand_beside_the_published_ones() -> None:
    results = {
        "lovt_100": {TASK: result(0.51, 0.53, 0.52)},
        "mine": {TASK: result(0.60)},
        "random": {TASK: result(0.05, 0.05)},
    }
    found = filled(TABLES["lovt_table_1"], results)
    assert [title for title, _ in found.groups][-1] == "Measured here"
    page = in_markdown(found)
    by_title = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in page.splitlines()}
    *_, last = (line for line in page.splitlines() if line.startswith("| LoVT"))
    cells = [cell.strip() for cell in last.split("|")[2:-1]]
    # Mean 52, Student's t 4.303 of two degrees of freedom.
    assert cells[8] == "**51.8 ± 0.0**<br><u>52.0 ± 2.5</u> (n=3)"
    assert cells[0] == f"8.5 ± 0.8<br>{NOT_RUN}"
    assert by_title["mine"][8].strip() == "**60.0** (n=1)"
    assert by_title["mine"][0].strip() == NOT_RUN
    # Of which nothing was run, that is said once.
    assert by_title[f"ImageNet ({NOT_RUN})"][8].strip() == "43.3 ± 0.0"
    assert by_title["Random"][8].strip() == "5.3 ± 0.0<br>5.0 ± 0.0 (n=2)"
    latex = in_latex(found)
    assert r"\textbf{51.8$\pm$0.0}" in latex
    assert r"\underline{52.0$\pm$2.5} ($n=3$)" in latex
    assert latex.count(r"\quad here") == 2
    assert rf"mine & {' & '.join([NOT_RUN] * 8)} & \textbf{{60.0}} ($n=1$) \\" in latex
    assert f"ImageNet ({NOT_RUN}) & 5.0" in latex
    html = in_html(found)
    assert html.count("<tr") == 1 + 4 + 17
    cell = html[html.index("<b>51.8 ± 0.0</b>") :].partition("</td>")[0]
    assert '"measured"><u>52.0 ± 2.5</u> <small>n=3</small></span>' in cell
    assert 'name="viewport"' in html
    assert html.count(NOT_RUN) == 14 + 3 * 8
    assert not re.search(r"https?:|url\(|<script", html)
    rows = list(csv.DictReader(in_csv(found).splitlines()))
    assert len(rows) == (16 + 1) * 9
    (ours,) = [row for row in rows if row["method"] == "mine" and row["task"] == TASK]
    assert (ours["published"], float(ours["measured"]), ours["runs"]) == ("", 60.0, "1")


def suite(folder: Path) -> SuiteConfig:
    asked = ["encoder=random", f"run_folder={folder}"]
    return load_profile(SuiteConfig, CONFIGS / "downstream" / "paper.yaml", asked)


def test_the_page_says_what_was_not_run_and_what_on_what(tmp_path: Path) -> None:
    page = suite_page(suite(tmp_path))
    assert page.count(f"({NOT_RUN})") == sum(len(table.rows) for table in TABLES.values())
    own = tmp_path / "lovt_30" / TASK
    own.mkdir(parents=True)
    (own / "task.json").write_text(result(0.4, 0.5).model_dump_json())
    page = suite_page(suite(tmp_path))
    # 1.96 and Student's 12.7 times the deviation by the root of two.
    row = "| lovt_30 | rsna_linear_100 | rsna | 1 | 0.001 | dice | 45.0 | 63.5 | 9.8 | 2 |"
    assert row in page.splitlines()
    # Another encoder's figures stand on the same page and in the same tables.
    other = tmp_path / "limitr" / TASK
    other.mkdir(parents=True)
    (other / "task.json").write_text(result(0.3, 0.3).model_dump_json())
    both = suite_page(suite(tmp_path))
    assert row in both.splitlines()
    assert "| limitr | rsna_linear_100 | rsna | 1 | 0.001 | dice | 30.0 | 0.0 | 0.0 | 2 |" in both
    table = in_markdown(filled(TABLES["lovt_table_1"], read_suite(suite(tmp_path))))
    assert table.count("(n=2)") == 2
    (own / "task.json").write_text("{")
    with pytest.raises(InputError, match=r"task.json: damaged"):
        read_suite(suite(tmp_path))


def test_a_row_of_ours_by_a_published_name_is_there_once() -> None:
    results = {"lovt_100": {TASK: result(0.51, 0.53)}}
    groups = filled(TABLES["lovt_table_1"], results, {"lovt_100": "Ours"}).groups
    measured = [line.title for _, lines in groups for line in lines if line.is_measured]
    assert (groups[0][0], measured) == ("Measured here", ["Ours"])


def test_claims_are_held_against_the_figures_of_both_methods() -> None:
    results = {
        "lovt": {"a": result(0.51, 0.53, 0.52), "b": result(0.2, 0.5), "c": result(0.1, 0.1, 0.1)},
        "random": {
            "a": result(0.41, 0.44, 0.41),
            "b": result(0.3, 0.3),
            "c": result(0.2, 0.2, 0.21),
            "d": result(0.9),
        },
    }
    claims = (
        Claim(says="reports help", method="lovt", than="random"),
        Claim(says="images do", method="simclr", than="random"),
    )
    counts, each = claims_told(claims, dict.fromkeys("abcd", "dice"), results)
    # Of a: +10, +9, +11, Student's t 4.303 of two degrees of freedom.
    assert each.splitlines()[2:] == [
        "| a | dice | **+10.0 ± 2.5** | not yet run |",
        "| b | dice | +5.0 ± 190.6 | not yet run |",
        "| c | dice | *-10.3 ± 1.4* | not yet run |",
        "| d | dice | not yet run | not yet run |",
    ]
    assert counts.splitlines()[2:] == [
        "| reports help | 1 | 1 | 1 | 1 | +1.6 |",
        "| images do | 0 | 0 | 0 | 4 |  |",
    ]


def test_the_phantoms_claims_are_of_its_rows_and_stand_on_its_page(tmp_path: Path) -> None:
    words = ["encoder=random", f"run_folder={tmp_path}"]
    suite = load_profile(SuiteConfig, CONFIGS / "downstream" / "phantom.yaml", words)
    header = (CONFIGS / "downstream" / "phantom.yaml").read_text()
    loop = re.search(r"for method in (.*); do", header)
    assert loop is not None
    rows = {f"phantom_{name}" for name in loop.group(1).split()}
    named = {name for claim in suite.claims for name in (claim.method, claim.than)}
    assert named <= rows
    assert set(suite.rows) == rows
    page = suite_page(suite)
    assert page.count("\n| LoVT without local losses | not yet run |") == len(suite.tables)
    assert all(claim.says in page for claim in suite.claims)
    assert all(" ".join(note.split()) in page for note in suite.notes)
