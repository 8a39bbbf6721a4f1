"""Reports of tables: headers of any spelling, in one column or in one for each section."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from data_shards.errors import InputError
from tests.data_shards.sources.csv_tables import sample_of, source_of, write_table


def test_a_table_of_case_notes_is_read_whole(tmp_path: Path) -> None:
    """Of the shape that collections of published cases have: free text, columns nobody asks for."""
    notes = (
        'Day 3: fever, "dry cough"; bilateral opacities.',
        "A man of 54, intubated.\nSevere ARDS, 2.5 cm nodule on the left.",
        "CT (not shown) was normal. The radiograph, taken supine, is not.",
    )
    rows = [
        {
            "image": f"case-{number}{'.JPG' if number % 2 else '-a.png'}",
            "patient_id": str(number // 2),
            "offset_days": "",
            "view": ("PA", "AP", "AP Supine")[number % 3],
            "license": "CC BY",
            "clinical_notes": f"{notes[number % 3]} {number}",
        }
        for number in range(60)
    ]
    for row in rows:
        (tmp_path / row["image"]).touch()
    with (tmp_path / "pairs.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    columns = {"report": "clinical_notes", "view": "view"}
    source = source_of(tmp_path / "pairs.csv", columns=columns)
    refs = source.list_studies()
    assert len(refs) == 60
    assert len({ref.patient_id for ref in refs}) == 30
    text_of = {row["image"]: row["clinical_notes"] for row in rows}
    for ref in refs:
        sample = sample_of(source, ref.patient_id, ref.study_id)
        path = Path(str(sample.images[0].path))
        assert path.is_file()
        assert sample.report.raw == text_of[path.name]
        assert any(sample.report.sentences.values())


def test_headers_can_be_named(tmp_path: Path) -> None:
    text = "TOMOGRAPHY: No effusion.\nSUMMARY: Told."
    table = write_table(tmp_path / "t.csv", (("a.png", "p1", "s1", "PA", "train", text),))
    names = {"Tomography": "findings", "SUMMARY": "recommendations"}
    report = sample_of(source_of(table, section_names=names), "p1", "s1").report
    assert report.sections == {
        "preamble": "",
        "findings": "No effusion.",
        "recommendations": "Told.",
    }
    with pytest.raises(
        InputError, match=r"section_names\.X: no section .* choose one of .*findings"
    ):
        source_of(table, section_names={"X": "finding"})


def test_columns_of_sections_may_hold_headers(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("image,patient,f,i\na.png,p1,FINDINGS: No mass.<br>Tip: high.,Impression: OK\n")
    columns = {"image": "image", "patient_id": "patient", "findings": "f", "impression": "i"}
    source = source_of(path, columns=columns, default_view="PA")
    report = sample_of(source, "p1", "a.png").report
    assert report.sentences == {"findings": ("No mass.", "Tip: high."), "impression": ("OK",)}
    assert report.raw == ("FINDINGS: FINDINGS: No mass.<br>Tip: high.\nIMPRESSION: Impression: OK")
