"""Tables of many runs."""

from __future__ import annotations

from distributed_pretrain.experiments.tables import markdown_table


def test_a_bar_in_a_title_is_no_new_column() -> None:
    head, line, row = markdown_table([["", "CNR, |.|"], ["a|b", "1"]]).splitlines()
    assert (head, line, row) == (r"|  | CNR, \|.\| |", "| --- | --- |", r"| a\|b | 1 |")
