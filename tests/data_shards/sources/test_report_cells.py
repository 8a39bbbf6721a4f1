from __future__ import annotations

from typing import get_args

import pytest

from data_shards.sources.report_cells import Trace, read_report_cell, told


@pytest.mark.parametrize(
    ("written", "trace", "meant"),
    [
        (
            r"FINDINGS: Clear.\nIMPRESSION: Normal.",
            "escapes",
            "FINDINGS: Clear.\nIMPRESSION: Normal.",
        ),
        (r"Clear.\r\nNormal.\rGood.", "escapes", "Clear.\nNormal.\nGood."),
        (r"Clear.\\nNormal.", "escapes", "Clear.\nNormal."),
        (r"FINDINGS:\tClear.", "escapes", "FINDINGS:\tClear."),
        (r"The \"blurred\" margin isn\'t new.", "escapes", 'The "blurred" margin isn\'t new.'),
        ("Clear._x000D_\nNormal.", "excel", "Clear.\r\nNormal."),
        ("A_x005F_B", "excel", "A_B"),
        ("Clear.<br/>Normal.<BR>Good.<br />", "html", "Clear.\nNormal.\nGood."),
        ('<p class="x">Clear <b>lungs</b>.</p><!-- x -->', "html", "Clear lungs.\n"),
        (
            "Nodule &lt; 5 mm &amp; new, 37&nbsp;&deg;C, &#8211; &#x2013;",
            "html",
            "Nodule < 5 mm & new, 37\xa0°C, – –",
        ),
        ("Nodule &amp;lt; 5 mm", "html", "Nodule < 5 mm"),
        ("Heart\0size\x07is", "controls", "Heart size is"),
        ("The patient\x92s heart \x96 normal", "controls", "The patient’s heart – normal"),
        ("['Clear lungs.', 'No effusion.']", "lists", None),
        ('{"findings": "Clear."}', "lists", None),
        ("The patientâ€™s heart, 37Â°C, cafÃ©", "decoded", None),
        ("Heart \ufffd normal", "decoded", None),
    ],
)
def test_what_other_programs_left_is_read_as_what_it_stands_for(
    written: str, trace: Trace, meant: str | None
) -> None:
    text, found = read_report_cell(written, escapes="undo")
    assert text == (written if meant is None else meant).strip()
    assert trace in found
    kept, found = read_report_cell(written, escapes="keep")
    assert trace in found
    assert kept == (written.strip() if trace != "controls" else meant)


@pytest.mark.parametrize(
    "text",
    [
        "FINDINGS: Nodule < 5 mm, > 3 mm; R&D, AT&T &c.\nIMPRESSION: <see below>.",
        "Compared to ___ and [**2010-1-1**], x_ray 3/4.\v\f\tStable.",
        "[Clear lungs.]",
        "ÂGE 70, NÃO, 37 °C – ‘stable’",
        "5 < 6 and b > a",
    ],
)
def test_a_report_without_traces_is_not_touched(text: str) -> None:
    assert read_report_cell(text, escapes="undo") == (text, set())


@pytest.mark.parametrize("text", ["<br>", "&nbsp;", "\0", "nan", "\\n", "<p>None</p>"])
def test_a_report_of_traces_alone_is_empty(text: str) -> None:
    assert read_report_cell(text, escapes="undo")[0] == ""


def test_every_trace_is_told_with_count_line_and_remedy() -> None:
    lines = {told(trace, 3, 7, escapes="undo") for trace in get_args(Trace)}
    assert len(lines) == len(get_args(Trace))
    assert all(
        line.startswith("3 x a report with ") and "(first: line 7): " in line for line in lines
    )
    assert "source.escapes=keep" in told("html", 1, 2, escapes="undo")
    assert "kept as source.escapes says" in told("html", 1, 2, escapes="keep")
