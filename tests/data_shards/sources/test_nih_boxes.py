from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.records.study import Box
from data_shards.sources.nih_boxes import FINDINGS, NihBoxesConfig
from tests.data_shards.sources.tables_on_disk import samples_of, source_of, touch, write_lines

BOXES = (
    "Image Index,Finding Label,Bbox [x,y,w,h],,,",
    "00000001_000.png,Atelectasis,225.08,547.01,86.77,79.18,,,",
    "00000001_000.png,Mass,10.5,20,30,40,,,",
    "00000002_003.png,Cardiomegaly,1,2,3,4,,,",
)
ENTRIES = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position",
    "00000001_000.png,Atelectasis|Mass,0,1,40,M,PA",
    "00000002_003.png,Cardiomegaly,3,2,40,F,AP",
    "00000003_000.png,No Finding,0,3,40,F,AP",
    "00000004_000.png,No Finding,0,4,40,F,PA",
    "00000005_000.png,No Finding,0,5,40,F,PA",
)


def archive(root: Path, *boxes: str) -> Path:
    write_lines(root / "BBox_List_2017.csv", *(boxes or BOXES))
    write_lines(root / "Data_Entry_2017.csv", *ENTRIES)
    write_lines(root / "test_list.txt", "00000001_000.png", "00000003_000.png", "00000004_000.png")
    touch(root, (f"images_00{n}/images/0000000{n}_000.png" for n in (1, 3, 4, 5)))
    touch(root, ("images_001/images/00000002_003.png",))
    return root


def test_the_header_with_commas_in_it_is_read(tmp_path: Path) -> None:
    samples = samples_of(source_of(NihBoxesConfig, root=archive(tmp_path)))
    one = samples["00000001_000"]
    assert one.boxes == (
        Box(0, 225.08, 547.01, 86.77, 79.18, "Atelectasis"),
        Box(0, 10.5, 20, 30, 40, "Mass"),
    )
    assert (one.patient_id, one.images[0].view) == ("00000001", "PA")
    assert {name for name, value in one.labels.items() if value == 1} == {"Atelectasis", "Mass"}
    # Of what is not boxed the table says nothing.
    assert one.labels["Nodule"] is None
    assert samples["00000002_003"].images[0].view == "AP"


def test_images_without_a_finding_are_of_the_test_list(tmp_path: Path) -> None:
    source = source_of(NihBoxesConfig, root=archive(tmp_path), no_finding_images=2)
    samples = samples_of(source)
    assert samples.keys() - {"00000001_000", "00000002_003"} == {"00000003_000", "00000004_000"}
    free = samples["00000003_000"]
    assert free.labels == {**dict.fromkeys(FINDINGS, 0.0), "No Finding": 1.0}
    with pytest.raises(InputError, match=r"2 images of test_list\.txt are without a finding"):
        source_of(NihBoxesConfig, root=tmp_path, no_finding_images=3).list_studies()


def test_rows_of_the_entries_are_blamed_on_their_table_and_the_later_release_counts(
    tmp_path: Path,
) -> None:
    root = archive(tmp_path)
    # Of the images with boxes the later release says the same.
    later = [*ENTRIES[:3], *(row.replace(",AP", ",OBLIQUE") for row in ENTRIES[3:])]
    write_lines(root / "Data_Entry_2017_v2020.csv", *later)
    source = source_of(NihBoxesConfig, root=root, no_finding_images=2)
    with pytest.raises(InputError, match=r"Entry_2017_v2020.csv: line 4: image 00000003_000: unkn"):
        source.list_studies()
    (root / "Data_Entry_2017.csv").unlink()
    assert root / "Data_Entry_2017_v2020.csv" in source.tables()
    assert source_of(NihBoxesConfig, root=root).list_studies()


@pytest.mark.parametrize("name", ["Data_Entry_2017.csv", "test_list.txt"])
def test_without_what_they_are_drawn_from_no_images_without_a_finding_is_the_remedy(
    name: str, tmp_path: Path
) -> None:
    (archive(tmp_path) / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: no such file.*source\.no_finding_images=0$"):
        source_of(NihBoxesConfig, root=tmp_path, no_finding_images=2).list_studies()
    assert len(samples_of(source_of(NihBoxesConfig, root=tmp_path))) == 2


def test_a_test_list_that_is_no_text_is_refused_and_one_of_windows_is_read(tmp_path: Path) -> None:
    path = archive(tmp_path) / "test_list.txt"
    text = path.read_text()
    path.write_bytes(text.encode("utf-16"))
    assert len(samples_of(source_of(NihBoxesConfig, root=tmp_path, no_finding_images=2))) == 4
    path.write_bytes(b"\xff\xd8\xff\xe0 a picture")
    with pytest.raises(InputError, match=r"test_list\.txt: an image, not a table of text"):
        source_of(NihBoxesConfig, root=tmp_path, no_finding_images=2).list_studies()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            (BOXES[0], "a_0.png,Fracture,1,2,3,4,,,"),
            "line 2: Finding Label 'Fracture': expected Atel.*: correct it",
        ),
        ((BOXES[0], "a_0.png,Mass,,,,,,,"), "line 2: image a_0.png has no box"),
        ((BOXES[0], "a_0.png,Mass,1,2,nan,4,,,"), "line 2: column 'w' is '': a number"),
        (("Image Index,Finding Label,x,y,w,h", "a_0.png,Mass,1,2,3,4"), r"no column 'Bbox \[x'"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(
    rows: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        source_of(NihBoxesConfig, root=archive(tmp_path, *rows)).list_studies()


def test_the_published_table_has_its_published_counts(tmp_path: Path) -> None:
    """NIH_BOXES_FOLDER holds the real BBox_List_2017.csv.gz (and some images)."""
    folder = os.environ.get("NIH_BOXES_FOLDER")
    if not folder:
        pytest.skip("NIH_BOXES_FOLDER is not set")
    source = source_of(NihBoxesConfig, root=Path(folder))
    rows = [row for rows in source.studies.values() for row in rows]
    assert (len(rows), len({row.patient_id for row in rows})) == (880, 726)
    assert Counter(box.category for row in rows for box in row.boxes) == {
        "Atelectasis": 180,
        "Effusion": 153,
        "Cardiomegaly": 146,
        "Infiltrate": 123,
        "Pneumonia": 120,
        "Pneumothorax": 98,
        "Mass": 85,
        "Nodule": 79,
    }
