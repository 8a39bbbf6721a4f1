"""Tables of runs made up for the test."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow.parquet
import pytest

from data_shards.errors import InputError
from distributed_pretrain.experiments.tables import (
    Estimate,
    Row,
    markdown_table,
    runs_table,
    show_values,
    text_table,
    write_rows,
)
from distributed_pretrain.measures.metric import Metric

RECALL = Metric("recall_at_5", "R@5")
CONTRAST = Metric("grounding_cnr", "grounding CNR", unit="number")


@pytest.mark.parametrize(
    ("half_width", "metric", "shown"),
    [
        (0.021, RECALL, "31.4 ± 2.1"),
        (0.021, CONTRAST, "0.31 ± 0.02"),
        (0.021, None, "0.3141 ± 0.021"),
        (None, RECALL, "31.4"),
        (None, None, "0.3141"),
    ],
)
def test_an_estimate_is_shown_in_the_unit_of_its_metric(
    half_width: float | None, metric: Metric | None, shown: str
) -> None:
    assert Estimate(0.31412, half_width).show(metric) == shown


def test_a_difference_has_its_sign_and_counts_fractions_in_points() -> None:
    assert Estimate(0.021, 0.01).show_difference(RECALL) == "+2.1 ± 1.0 points"
    assert Estimate(-0.021, None).show_difference(CONTRAST) == "-0.02"


def test_runs_without_a_value_are_a_dash() -> None:
    assert show_values([], RECALL) == "-"
    assert show_values([0.5], RECALL) == "50.0"


def test_columns_of_text_are_aligned_and_end_without_blanks() -> None:
    assert text_table([["a", "b"], ["long", "1"], ["x", ""]]) == "a     b\nlong  1\nx"


def test_the_first_row_of_markdown_is_the_head() -> None:
    assert markdown_table([["a", "b"], ["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def rows() -> list[Row]:
    figures = {("clip", "1"): 0.5, ("clip", "2"): 0.7, ("lovt", "1"): 0.9}
    return [
        {
            "task": f"{profile}__seed={seed}",
            "state": "finished" if (profile, seed) in figures else "failed",
            "profile": profile,
            "seed": seed,
            "auroc": figures.get((profile, seed)),
        }
        for profile in ("clip", "lovt")
        for seed in ("1", "2")
    ]


def test_the_table_averages_over_seeds() -> None:
    lines = runs_table(rows(), values=["profile", "seed"]).split("\n")
    assert [line.split() for line in lines] == [
        ["profile", "finished", "auroc"],
        ["clip", "2", "of", "2", "0.6", "±", "0.2"],
        ["lovt", "1", "of", "2", "0.9"],
    ]


def test_a_table_without_figures_counts_what_finished() -> None:
    failed: list[Row] = [{"task": "only", "state": "failed"}]
    assert runs_table(failed, values=[]).split("\n") == ["finished", "0 of 1"]


def test_csv_leaves_out_what_is_missing(tmp_path: Path) -> None:
    write_rows(rows(), tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["auroc"] for row in read] == ["0.5", "0.7", "0.9", ""]
    assert read[3]["state"] == "failed"


def test_parquet_reads_back_equal(tmp_path: Path) -> None:
    write_rows(rows(), tmp_path / "results.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "results.parquet").to_pylist() == rows()


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"results.xlsx: .* a .csv or a .parquet"):
        write_rows(rows(), tmp_path / "results.xlsx")
