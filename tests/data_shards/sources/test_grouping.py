"""Rows that contradict each other, and ids that two things may share, through a table's source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_shards.errors import InputError
from data_shards.nothing import NOTHING
from data_shards.profiles import validate
from data_shards.sources.csv_pairs import CsvPairsConfig, CsvPairsSource

HEADER = "image,patient,study,findings,impression,split\n"


def source_of(tmp_path: Path, rows: str, **settings: Any) -> CsvPairsSource:
    table = tmp_path / "t.csv"
    table.write_text(HEADER + rows)
    columns = {each: each for each in ("image", "findings", "impression", "split")}
    columns |= {"patient_id": "patient", "study_id": "study"}
    values = {"table": table, "image_root": tmp_path, "columns": columns, "default_view": "PA"}
    return CsvPairsSource(validate(CsvPairsConfig, values | settings, where="test"))


def sections_of(source: CsvPairsSource) -> dict[str, Any]:
    """The sections of each study, or why it is left out."""
    found = {}
    for ref in source.list_studies():
        sample = source.load_study(ref)
        found[ref.study_id] = sample if isinstance(sample, str) else sample.report.sections
    return found


TWO_REPORTS = (
    "a.png,p1,s1,Clear.,Normal.,train\n"
    "b.png,p1,s1,Opacity.,Normal.,train\n"
    "c.png,p2,s2,Clear.,Normal.,train\n"
    "d.png,p1,s1,Nodule.,Normal.,train\n"
)


def test_contradictory_reports_stop_with_both_lines_and_the_setting(tmp_path: Path) -> None:
    message = (
        r"line 3: study s1 of patient p1 has another report \(findings\) than in line 2: .*first"
    )
    with pytest.raises(InputError, match=message):
        source_of(tmp_path, TWO_REPORTS).list_studies()


def test_the_first_row_may_hold(tmp_path: Path) -> None:
    source = source_of(tmp_path, TWO_REPORTS, conflicts="first")
    assert sections_of(source)["s1"] == {"findings": "Clear.", "impression": "Normal."}
    [warning] = source.warnings()
    assert warning.startswith(
        "2 x a row with another report (findings) than its study has (first: line 3)"
    )


def test_where_the_first_row_holds_no_part_of_another_report_is_mixed_in(tmp_path: Path) -> None:
    rows = "a.png,p1,s1,Clear.,,train\nb.png,p1,s1,Opacity.,Pneumonia.,train\n"
    source = source_of(tmp_path, rows, conflicts="first")
    assert sections_of(source) == {"s1": {"findings": "Clear."}}


def test_contradictory_studies_may_be_left_out_and_are_counted(tmp_path: Path) -> None:
    source = source_of(tmp_path, TWO_REPORTS, conflicts="drop")
    assert sections_of(source) == {
        "s1": "rows of the study contradict each other",
        "s2": {"findings": "Clear.", "impression": "Normal."},
    }
    assert "line 3" in source.warnings()[0]


def test_blanks_and_empty_cells_are_no_other_report(tmp_path: Path) -> None:
    rows = (
        "a.png,p1,s1,,  nan ,train\n"
        '"b.png",p1,s1,"Clear  lungs.\n No effusion.",,train\n'
        'c.png,p1,s1,"Clear lungs. No effusion.",Normal.,train\n'
    )
    source = source_of(tmp_path, rows)
    findings = "Clear  lungs.\n No effusion."
    assert sections_of(source) == {"s1": {"findings": findings, "impression": "Normal."}}
    assert source.warnings() == ()


@pytest.mark.parametrize("word", ["", *sorted(NOTHING)])
def test_a_study_without_a_report_in_any_row_is_told_by_its_first(
    tmp_path: Path, word: str
) -> None:
    rows = f'a.png,p1,s1,"{word}",,train\nb.png,p1,s1,,"{word}",train\nc.png,p1,s2,x,,train\n'
    with pytest.raises(InputError, match=r"line 2: image a\.png has no report"):
        source_of(tmp_path, rows).list_studies()
    source = source_of(tmp_path, rows, bad_reports="drop")
    assert sections_of(source)["s1"] == "the report is empty"


@pytest.mark.parametrize("conflicts", ["stop", "first", "drop"])
def test_a_study_in_two_splits_is_never_settled(tmp_path: Path, conflicts: str) -> None:
    rows = "a.png,p1,s1,Clear.,,train\nb.png,p1,s1,Clear.,,test\n"
    with pytest.raises(InputError, match=r"line 3: study s1 .* split \(test\) than in line 2 \(tr"):
        source_of(tmp_path, rows, conflicts=conflicts).list_studies()


def test_an_image_listed_twice_is_in_its_first_study_or_in_none(tmp_path: Path) -> None:
    rows = "a.png,p1,s1,A.,,train\na.png,p2,s2,B.,,train\nb.png,p2,s2,B.,,train\n"
    rows += "c.png,p3,s3,C.,,train\n"
    with pytest.raises(
        InputError, match=r"line 3: image a\.png is also in line 2: .*conflicts=first"
    ):
        source_of(tmp_path, rows).list_studies()
    source = source_of(tmp_path, rows, conflicts="first")
    assert [len(images) for images in source.studies.values()] == [1, 1, 1]
    assert "1 x a row that repeats an image (first: line 3)" in source.warnings()[0]
    kept = sections_of(source_of(tmp_path, rows, conflicts="drop"))
    assert [study for study, sections in kept.items() if isinstance(sections, dict)] == ["s3"]


def test_a_row_that_is_there_twice_contradicts_nothing(tmp_path: Path) -> None:
    rows = "a.png,p1,s1,A.,,train\n" * 2
    source = source_of(tmp_path, rows, conflicts="drop")
    assert sections_of(source) == {"s1": {"findings": "A."}}
    assert "line 3" in source.warnings()[0]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        *(("7,s1", "7.0,s2"), ('"7,0",s1', "7,s2")),
        *(("10000032.0,s1", "10000032,s2"), ("p,5.00", "p,5")),
    ],
)
def test_a_number_and_its_decimals_are_not_two_ids(tmp_path: Path, one: str, two: str) -> None:
    rows = f"a.png,{one},A.,,train\nb.png,{two},A.,,train\n"
    with pytest.raises(InputError, match=r"line 3: .* in line 2: write one id for one"):
        source_of(tmp_path, rows).list_studies()


@pytest.mark.parametrize(
    ("one", "two"),
    [
        *(("007", "7"), ("P1", "p1"), ("p\uff11", "p1"), ("é", "e\u0301"), ("'007", "007")),
        *(("p 1", "p  1"), ("p 1", "p\u00a01"), ("’7", "7"), ("+5", "5"), ("\u0661\u0662", "12")),
        *(('"1,024"', "1024"), ("1'024", "1024"), ('"7,000"', "7000")),
    ],
)
def test_ids_that_may_be_one_are_told_and_kept(tmp_path: Path, one: str, two: str) -> None:
    rows = f"a.png,{one},s1,A.,,train\nb.png,{two},s2,A.,,train\nc.png,{two},s3,A.,,train\n"
    source = source_of(tmp_path, rows)
    one = one.strip('"')
    assert {ref.patient_id for ref in source.list_studies()} == {one, two}
    [warning] = source.warnings()
    assert warning.startswith("1 x a patient whose id differs")
    assert f"{two!r} in line 3, {one!r} in line 2" in warning


def test_ids_of_other_numbers_are_others(tmp_path: Path) -> None:
    ids = ("1", "10", "1.1", "1.10", "p1", "p01", "1_0", "0", "1000", "-1", "2020-05-01")
    rows = "".join(f"{n}.png,{each},s{n},A.,,train\n" for n, each in enumerate(ids))
    assert source_of(tmp_path, rows).warnings() == ()


def test_ids_that_a_spreadsheet_took_for_dates_are_told(tmp_path: Path) -> None:
    rows = "a.png,1-May,s1,A.,,train\nb.png,p2,May-20,A.,,train\nc.png,p3,2020-05-01,A.,,train\n"
    [warning] = source_of(tmp_path, rows).warnings()
    assert warning.startswith("2 x an id that reads like a date (first: '1-May' in line 2)")


LONG = "The heart is normal in size and there is no effusion or mass to be seen "


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ([f"{n} {LONG * 9}"[:255] for n in (1, 2, 3)], "3 x a report of 255 characters, the most"),
        ([(LONG * 900)[:32_767]], "1 x a report of 32,767 characters"),
        ([f"{n} {LONG * 9}"[:254] + "." for n in (1, 2, 3)], ""),
        ([(LONG * n)[:-n] for n in (2, 3, 4)], ""),
        (["Normal heart", "Normal lungs"], ""),
    ],
)
def test_texts_that_another_program_may_have_cut_are_told(
    tmp_path: Path, texts: list[str], told: str
) -> None:
    rows = "".join(f"{n}.png,p{n},s{n},{text},,train\n" for n, text in enumerate(texts, 1))
    warnings = source_of(tmp_path, rows).warnings()
    assert [each.startswith(told) for each in warnings] == [True] * bool(told)
    assert all("(first: line 2)" in each for each in warnings)


def test_traces_of_other_programs_are_counted_with_their_first_line(tmp_path: Path) -> None:
    rows = (
        "a.png,p1,s1,A.,,train\nb.png,p2,s2,A.<br>B.,C.<br>,train\nc.png,p3,s3,A &lt; B.,,train\n"
    )
    [warning] = source_of(tmp_path, rows).warnings()
    assert warning.startswith("2 x a report with HTML")
    assert "(first: line 3)" in warning


def test_one_file_by_several_paths_is_one_image(tmp_path: Path) -> None:
    paths = ("f/a.png", "./f//a.png", f"{tmp_path}/f/a.png", "f/../f/a.png", "g/../f/./a.png")
    for other in paths:
        rows = f"f/a.png,p1,s1,A.,,train\n{other},p2,s2,A.,,train\n"
        with pytest.raises(InputError, match=r"line 3: image f/a.png is also in line 2: duplicate"):
            source_of(tmp_path, rows).list_studies()
    rows = "".join(f"{path},p{n},s{n},A.,,train\n" for n, path in enumerate(paths))
    source = source_of(tmp_path, rows, conflicts="first")
    assert len(source.list_studies()) == 1
    assert source.warnings()[0].startswith("4 x a row that repeats an image")


def test_what_spreadsheets_protect_is_the_text_inside(tmp_path: Path) -> None:
    rows = 'a.png,="007",s1,A.,,train\nb.png,007,s2,A.,,train\n"=""c.png""",p3,s3,="B.",,="train"\n'
    source = source_of(tmp_path, rows)
    refs = source.list_studies()
    assert [(ref.patient_id, ref.study_id) for ref in refs] == [
        ("007", "s1"),
        ("007", "s2"),
        ("p3", "s3"),
    ]
    assert source.warnings() == ()
    loaded = source.load_study(refs[-1])
    assert not isinstance(loaded, str)
    assert [image.id for image in loaded.images] == ["c.png"]
    assert loaded.report.sentences["findings"] == ("B.",)
