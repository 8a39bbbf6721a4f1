from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.records.study import Box
from data_shards.sources.rsna import RsnaConfig
from tests.data_shards.sources.tables_on_disk import samples_of, source_of, touch, write_lines

LABELS = (
    "patientId,x,y,width,height,Target",
    "aa,,,,,0",
    "bb,264.0,152.0,213.0,379.0,1",
    "bb,562.0,152.0,256.0,453.0,1",
    "cc,,,,,0",
)
CLASSES = (
    "patientId,class",
    "aa,No Lung Opacity / Not Normal",
    "bb,Lung Opacity",
    "bb,Lung Opacity",
    "cc,Normal",
)


def archive(
    root: Path, labels: tuple[str, ...] = LABELS, classes: tuple[str, ...] = CLASSES
) -> Path:
    write_lines(root / "stage_2_train_labels.csv", *labels)
    if classes:
        write_lines(root / "stage_2_detailed_class_info.csv", *classes)
    touch(root / "stage_2_train_images", ("aa.dcm", "bb.dcm", "cc.dcm", "._cc.dcm"))
    return root


def test_rows_of_a_box_each_are_one_image(tmp_path: Path) -> None:
    samples = samples_of(source_of(RsnaConfig, root=archive(tmp_path)))
    assert samples["bb"].boxes == (
        Box(0, 264, 152, 213, 379, "Pneumonia"),
        Box(0, 562, 152, 256, 453, "Pneumonia"),
    )
    assert {study: sample.labels for study, sample in samples.items()} == {
        "aa": {"Pneumonia": 0, "Normal": 0},
        "bb": {"Pneumonia": 1, "Normal": 0},
        "cc": {"Pneumonia": 0, "Normal": 1},
    }
    assert [sample.report.raw for sample in samples.values()] == [""] * 3


def test_images_that_the_table_does_not_name_are_counted(tmp_path: Path) -> None:
    source = source_of(RsnaConfig, root=archive(tmp_path, LABELS[:-1], classes=()))
    [dropped] = source.list_dropped_images()
    assert (dropped.key, dropped.reason) == ("cc", "not in the table of labels")


def test_the_table_of_classes_may_be_absent(tmp_path: Path) -> None:
    samples = samples_of(source_of(RsnaConfig, root=archive(tmp_path, classes=())))
    assert samples["cc"].labels == {"Pneumonia": 0}


def test_patients_are_nihs_where_the_mapping_is_there(tmp_path: Path) -> None:
    mapping = tmp_path / "mapping.json"
    pairs = {"aa": "00000007_000.png", "bb": "00000007_012.png", "cc": "00000009_000.png"}
    mapping.write_text(
        json.dumps([{"subset_img_id": ours, "img_id": nih} for ours, nih in pairs.items()])
    )
    source = source_of(RsnaConfig, root=archive(tmp_path), nih_mapping=mapping)
    patients = {ref.study_id: ref.patient_id for ref in source.list_studies()}
    assert patients == {"aa": "00000007", "bb": "00000007", "cc": "00000009"}
    mapping.write_text(json.dumps([{"subset_img_id": "aa", "img_id": "00000007_000.png"}]))
    with pytest.raises(InputError, match=r"line 3: image bb is not in .*mapping.json"):
        source_of(RsnaConfig, root=tmp_path, nih_mapping=mapping).list_studies()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"subset_img_id": "aa", "img_id": None}, "entry 0: img_id is empty: fetch the mapping"),
        ({"subset_img_id": "aa", "img_id": ""}, "entry 0: img_id is empty"),
        ({"subset_img_id": "aa", "img_id": ["a.png"]}, "entry 0: img_id is a list"),
        ({"subset_img_id": "unknown", "img_id": "a"}, "entry 0: subset_img_id is 'unknown', which"),
        ({"subset_img_id": "aa"}, "not the mapping of RSNA to NIH .*: fetch it again"),
    ],
)
def test_a_mapping_that_names_no_image_is_refused(
    entry: dict[str, object], said: str, tmp_path: Path
) -> None:
    mapping = tmp_path / "mapping.json"
    mapping.write_text(json.dumps([entry]))
    with pytest.raises(InputError, match=said):
        source_of(RsnaConfig, root=archive(tmp_path), nih_mapping=mapping).list_studies()


@pytest.mark.parametrize(
    ("labels", "classes", "said"),
    [
        (("patientId,x,y,width,Target", "aa,,,,0"), (), "no column 'height'"),
        ((LABELS[0], "aa,,,,,2"), (), r"line 2: Target '2': expected 0 or 1"),
        ((LABELS[0], "aa,1,2,3,4,0"), (), "line 2: image aa has Target 0 and a box"),
        ((LABELS[0], "aa,,,,,1"), (), "line 2: image aa has Target 1 and no box"),
        ((LABELS[0], "aa,1,2,,4,1"), (), "line 2: column 'width' is '': a number is wanted"),
        ((LABELS[0], "aa,1,2,0,4,1"), (), "line 2: a box of 0 x 4 pixels at 1, 2"),
        ((LABELS[0], "aa,,,,,0", "aa,1,2,3,4,1"), (), "line 3: image aa is also in line 2"),
        (LABELS, CLASSES[:-1], "line 5: image cc has no line in stage_2_detailed_class_info"),
        (LABELS[:-1], CLASSES, "labels.csv: no line of 1 of the 3 images in .*first: cc.: fetch"),
        (LABELS, CLASSES[:1], "detailed_class_info.csv: no row below its header: fetch"),
        ((LABELS[0], "aa,1_0,2,3,4,1"), (), "line 2: column 'x' is '1_0': a number is wanted"),
        (LABELS, (*CLASSES[:-1], "cc,Odd"), "line 5: class 'Odd': expected Lung Opacity"),
        (LABELS, (*CLASSES[:-1], "cc,Lung Opacity"), "line 5: image cc has Target 0, and in"),
        (LABELS, (*CLASSES, "cc,Lung Opacity"), "line 6: image cc is 'Lung Opacity', and before"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(
    labels: tuple[str, ...], classes: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        source_of(RsnaConfig, root=archive(tmp_path, labels, classes)).list_studies()


def test_a_missing_folder_and_table_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"stage_2_train_labels.csv: no such table"):
        source_of(RsnaConfig, root=tmp_path).list_studies()
    write_lines(tmp_path / "stage_2_train_labels.csv", *LABELS)
    with pytest.raises(InputError, match=r"stage_2_train_images: no such folder"):
        source_of(RsnaConfig, root=tmp_path).list_studies()
