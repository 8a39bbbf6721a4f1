import json
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.records.manifest import DroppedSample
from data_shards.sources.base import StudyRef
from tests.data_shards.sources.csv_tables import ROWS, sample_of, source_of, write_table


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.csv.gz", "t.jsonl.gz"])
def test_rows_of_one_study_are_its_images_by_id(tmp_path: Path, name: str) -> None:
    source = source_of(write_table(tmp_path / name, ROWS))
    assert source.list_studies() == [
        StudyRef("p1", "s1", "train"),
        StudyRef("p2", "s2", "validate"),
    ]
    sample = sample_of(source, "p1", "s1")
    assert [(image.id, image.view) for image in sample.images] == [
        ("b/1.png", "AP"),
        ("b/2.png", "L"),
    ]
    assert sample.images[0].path == tmp_path / "b/1.png"
    assert sample.report.sections["impression"] == "Normal."
    assert sample_of(source, "p2", "s2").images[0].view == "PA"


def test_without_study_ids_every_image_is_a_study_and_the_builder_splits(tmp_path: Path) -> None:
    source = source_of(write_table(tmp_path / "t.csv", ROWS), without=("study_id", "split"))
    assert source.list_studies() == [
        StudyRef("p1", "b/1.png"),
        StudyRef("p1", "b/2.png"),
        StudyRef("p2", "c.png"),
    ]


def test_findings_and_impression_may_be_columns(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("image,patient_id,f,i\na.png,p1,Clear.,Normal.\nb.png,p2,,Normal.\n")
    columns = {"findings": "f", "impression": "i"}
    source = source_of(table, columns=columns, default_view="PA")
    report = sample_of(source, "p1", "a.png").report
    assert report.raw == "FINDINGS: Clear.\nIMPRESSION: Normal."
    assert report.sentences == {"findings": ("Clear.",), "impression": ("Normal.",)}
    assert sample_of(source, "p2", "b.png").report.sections == {"impression": "Normal."}


def test_where_keeps_rows_by_value(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", ROWS)
    source = source_of(table, where={"view": ["LATERAL", "frontal"]})
    assert [image.id for image in sample_of(source, "p1", "s1").images] == ["b/2.png"]
    with pytest.raises(InputError, match=r"none of 3 rows passes source\.where"):
        source_of(table, where={"split": ["dev"]}).list_studies()
    with pytest.raises(InputError, match="no column 'nowhere'"):
        source_of(table, where={"nowhere": ["x"]}).list_studies()


def test_rows_that_where_leaves_out_for_a_spelling_are_counted(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    lines = [f"{n}.png,p{n},Clear.,{ok}" for n, ok in enumerate(("TRUE", "True", "1", "1.0", "no"))]
    table.write_text("\n".join(["image,patient_id,text,ok", *lines]))
    columns = {"report": "text"}
    for value, passed, left_out in (("TRUE", 1, 1), ("1", 1, 1), ("no", 1, 0)):
        source = source_of(table, columns=columns, where={"ok": [value]}, default_view="PA")
        assert len(source.list_studies()) == passed
        said = [f"{left_out} x a row left out by source.where"] * left_out
        assert [each[: len(said[0])] for each in source.warnings()] == said
    source = source_of(table, columns=columns, where={"ok": ["true"]}, default_view="PA")
    with pytest.raises(InputError, match=r"none of 5 rows .* \(line 2 has the same in another"):
        source.list_studies()


def test_where_takes_numbers_and_nothing_as_they_are_written(tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    rows = [
        {"image": f"{n}.png", "patient_id": n, "text": "Clear.", "year": year}
        for n, year in enumerate((2019, 2019.0, "2019", 2018.5, None, "NA", True))
    ]
    table.write_text("\n".join(map(json.dumps, rows)))
    for value, kept in {
        "2019": ["0.png", "1.png", "2.png"],
        "2018.5": ["3.png"],
        "": ["4.png", "5.png"],
        "nan": ["4.png", "5.png"],
        "true": ["6.png"],
    }.items():
        columns, where = {"report": "text"}, {"year": [value]}
        source = source_of(table, columns=columns, where=where, default_view="PA")
        assert [ref.study_id for ref in source.list_studies()] == kept


def test_names_that_differ_in_the_suffix_are_two_images(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("image,patient_id,r\nx.png,1,Clear.\nx.tif,2,Clear.\n./x.bmp,3,Clear.\n")
    source = source_of(table, columns={"report": "r"}, default_view="PA")
    assert [ref.study_id for ref in source.list_studies()] == ["x.png", "x.tif", "x.bmp"]


@pytest.mark.parametrize("encoding", ["utf-9", "base64", "", "a\0b"])
def test_an_encoding_is_one_of_text(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(InputError, match="encoding"):
        source_of(tmp_path / "t.csv", encoding=encoding)


def test_the_first_line_without_a_report_is_told_before_later_ones_that_make_no_sense(
    tmp_path: Path,
) -> None:
    table = tmp_path / "t.jsonl"
    rows = [
        {"image": f"{n}.png", "patient_id": n, "r": r} for n, r in enumerate(("a", None, ["b"]))
    ]
    table.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match=r"line 2: image 1\.png has no report"):
        source_of(table, columns={"report": "r"}, default_view="PA").list_studies()
    source = source_of(table, columns={"report": "r"}, default_view="PA", bad_reports="drop")
    with pytest.raises(InputError, match="line 3: column 'r' is a list"):
        source.list_studies()


def test_an_empty_view_takes_the_default(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", (("a.png", "p1", "s1", "", "train", "Clear."),))
    assert sample_of(source_of(table, default_view="AP"), "p1", "s1").images[0].view == "AP"
    with pytest.raises(InputError, match=r"line 2: image a\.png: unknown view ''"):
        source_of(table).list_studies()


def test_an_unknown_view_stops_or_drops_the_image(tmp_path: Path) -> None:
    table = write_table(
        tmp_path / "t.csv", (*ROWS[1:], ("d.png", "p1", "s1", "OBLIQUE", "train", ROWS[0][5]))
    )
    with pytest.raises(
        InputError, match=r"line \d: image d.png: unknown view 'OBLIQUE'.*unknown_views=drop"
    ):
        source_of(table).list_studies()
    source = source_of(table, unknown_views="drop")
    assert [image.id for image in sample_of(source, "p1", "s1").images] == ["b/1.png"]
    assert source.list_dropped_images() == (DroppedSample(key="d.png", reason="unknown view"),)


def test_a_study_left_without_images_or_text_is_dropped(tmp_path: Path) -> None:
    rows = (
        ("a.png", "p1", "s1", "OBLIQUE", "train", "Clear."),
        ("b.png", "p2", "s2", "PA", "train", " "),
    )
    table = write_table(tmp_path / "t.csv", rows)
    source = source_of(table, unknown_views="drop", bad_reports="drop")
    reasons = [source.load_study(ref) for ref in source.list_studies()]
    assert reasons == [
        "no image of a known view",
        "the report is empty",
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("c.png", "p2", "s3", "PA", "val", "x"), r"image c.png is also in line \d: duplicate ids"),
        (("d.png", "", "s3", "PA", "val", "x"), "column 'patient' is empty"),
        (("d.png", "p3", "s3", "PA", "dev", "x"), "split 'dev': expected"),
        (("d.png", "p3", "s3", "PA", "val", ""), r"image d\.png has no report"),
        (("d.png", "p2", "s2", "PA", "val", "Other."), "study s2 of patient p2 has another report"),
        (("d.png", "p2", "s3", "PA", "test", "x"), "patient p2 is in two splits"),
    ],
)
def test_bad_rows_are_refused_by_line(tmp_path: Path, row: tuple[str, ...], message: str) -> None:
    table = write_table(tmp_path / "t.csv", (*ROWS, row))
    with pytest.raises(InputError, match=message) as error:
        source_of(table).list_studies()
    assert str(table) in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such table"),
        ("t.csv", b"image,patient\n", "no column 'text', 'study', 'view', 'split'"),
        ("t.csv", b"image,patient,study,view,split,text\n", "no row below its header"),
        ("t.csv", b"image,patient,study,view,split,text\na,b,c,d,e,f,g\n", "more cells"),
        ("t.csv", b"image,patient,study,view,split,text\na,b,c,d,e,\xff\n", "not UTF-8"),
        ("t.jsonl", b"{]\n", "line 1: not valid JSON"),
        ("t.jsonl", b'\n{"image": "a"}\n', "no column 'text', 'patient', 'study', 'view', 'split'"),
        ("t.csv.gz", b"image", "gzip file is damaged"),
    ],
)
def test_damaged_tables_are_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    table = tmp_path / name
    if content is not None:
        table.write_bytes(content)
    with pytest.raises(InputError, match=message):
        source_of(table).list_studies()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"view": "view"}, "name either the report column"),
        ({"view": "view", "report": "a", "findings": "b"}, "name either the report column"),
        ({"report": "a"}, "name columns.view, or set default_view"),
        ({"report": "a", "views": "v"}, "did you mean 'view'"),
        ({"view": "v", "findings": "a", "impression": "a"}, "both 'a'"),
    ],
)
def test_profiles_that_cannot_work_are_refused(
    tmp_path: Path, columns: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        source_of(tmp_path / "t.csv", columns=columns)


def test_the_fingerprint_is_of_the_tables_content_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = source_of(write_table(tmp_path / "a" / "t.csv", ROWS))
    two = source_of(write_table(tmp_path / "b" / "t.csv", ROWS))
    before = one.fingerprint()
    assert before == two.fingerprint()
    write_table(tmp_path / "b" / "t.csv", (*ROWS[:2], (*ROWS[2][:-1], "A patient, without fever.")))
    assert two.fingerprint() != before == one.fingerprint()
