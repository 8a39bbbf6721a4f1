from __future__ import annotations

from typing import get_args

import pytest

from data_shards.sources.report_cells import Trace, read_report_cell, told


@pytest.mark.parametrize(
    ("written", "trace"),
    [
        (r"Clear.\nIMPRESSION: Normal.", "escapes"),
        (r"Clear.\r\nNormal.", "escapes"),
        (r"Clear.\\nNormal.", "escapes"),
        (r"The \"blurred\" margin isn\'t new.", "escapes"),
        ("Clear._x000D_\nNormal.", "excel"),
        ("Clear.<br/>Normal.", "html"),
        ('<P class="x">Clear.</P>', "html"),
        ("Clear <b>lungs.", "html"),
        ("Nodule &lt; 5 mm", "html"),
        ("See <a href='x'>prior</a>.", "html"),
        ("Clear<o:p></o:p>", "html"),
        ("<!-- a --> Clear", "html"),
        ("Clear &#8211; normal", "html"),
        ("Clear &#x2013; normal", "html"),
        ("['Clear lungs.', 'No effusion.']", "lists"),
        ('{"findings": "Clear."}', "lists"),
        ("('Clear lungs.',)", "lists"),
        ("b'Clear lungs.'", "lists"),
        ("=A1", "formulas"),
        ('=CONCATENATE(B2," ",C2)', "formulas"),
        ("=Sheet1!$B$2", "formulas"),
        ("Herz unauff+AOQ-llig", "decoded"),
        ("Herz gro+AN8.", "decoded"),
        ("The patientâ€™s heart", "decoded"),
        ("37Â°C", "decoded"),
        ("cafÃ©", "decoded"),
        ("Heart \ufffd normal", "decoded"),
    ],
)
def test_what_other_programs_left_is_found_and_left_to_the_reading(
    written: str, trace: Trace
) -> None:
    assert read_report_cell(written) == (written, {trace})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Heart\0size\x07is", "Heart size is"),
        ("The patient\x92s heart \x96 normal", "The patient’s heart – normal"),
    ],
)
def test_control_characters_are_blanks_or_what_windows_has_there(written: str, meant: str) -> None:
    assert read_report_cell(written) == (meant, {"controls"})


@pytest.mark.parametrize(
    "text",
    [
        "= 5 mm nodule. PA+AP views, labs+ABG done.",
        "FINDINGS: Nodule < 5 mm, > 3 mm; R&D, AT&T &c.\nIMPRESSION: <see below>.",
        "Compared to ___ and [**2010-1-1**], x_ray 3/4.\v\f\tStable.\x85Clear.\x1eNormal.",
        r"Comparison w\prior, seen w\o contrast, s\p surgery",
        "[Clear lungs.]",
        "ÂGE 70, NÃO, 37 °C – ‘stable’",
        "5 < 6 and b > a",
        "An effusion <a third of the hemithorax, previously >half",
    ],
)
def test_a_report_without_traces_is_not_touched(text: str) -> None:
    assert read_report_cell(text) == (text, set())


@pytest.mark.parametrize(
    "text", ["\0", "nan", "No report available", "missing", " NULL\0", "\x07 \x08"]
)
def test_a_report_of_nothing_is_empty(text: str) -> None:
    assert read_report_cell(text)[0] == ""


def test_every_trace_is_told_with_count_and_line() -> None:
    lines = {told(trace, 3, "line 7") for trace in get_args(Trace)}
    assert len(lines) == len(get_args(Trace))
    for line in lines:
        assert line.startswith("3 x a report with ")
        assert "(first: line 7): " in line
