import json
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.records.study import Box
from data_shards.sources.base import StudyRef
from data_shards.sources.ms_cxr import ms_cxr_overlap, read_ms_cxr

EFFUSION = Box(0, 10.0, 20.0, 30.0, 40.0, "Pleural Effusion", "small left effusion")
SECOND = Box(0, 60.0, 20.0, 5.0, 5.0, "Pleural Effusion", "small left effusion")
PATH = "files/p10/p10000001/s50000001/image-1.jpg"


def _write_csv(path: Path, *, with_split: bool) -> Path:
    header = "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height"
    rows = [
        f"image-1,Pleural Effusion,small left effusion,{PATH},{box},100,120"
        for box in ("10,20,30,40", "60,20,5,5")
    ]
    end = ["", ""] if not with_split else [",split", ",test"]
    path.write_text("\n".join([header + end[0], *(row + end[1] for row in rows)]) + "\n")
    return path


def _write_json(path: Path) -> Path:
    value = {
        "categories": [{"id": 3, "name": "Pleural Effusion"}],
        "images": [{"id": 7, "path": PATH, "width": 100, "height": 120}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "label_text": "small left effusion", "bbox": box}
            for box in ([10, 20, 30, 40], [60, 20, 5, 5])
        ],
    }
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize("with_split", [False, True], ids=["1.0", "1.1"])
def test_both_layouts_hold_the_same_boxes(tmp_path: Path, with_split: bool) -> None:
    from_csv = read_ms_cxr(_write_csv(tmp_path / "boxes.csv", with_split=with_split))
    from_json = read_ms_cxr(_write_json(tmp_path / "boxes.json"))
    for found in (from_csv, from_json):
        assert found.keys() == {"image-1"}
        assert [each.box for each in found["image-1"]] == [EFFUSION, SECOND]
        assert {each.size_px for each in found["image-1"]} == {(100, 120)}


def test_a_folder_stands_for_the_file_in_it(tmp_path: Path) -> None:
    _write_csv(tmp_path / "MS_CXR_Local_Alignment_v1.1.0.csv", with_split=True)
    assert read_ms_cxr(tmp_path).keys() == {"image-1"}


def test_the_overlap_counts_images_and_patients_of_each_split() -> None:
    overlap = ms_cxr_overlap(
        ["a", "b", "c", "elsewhere", "a"],
        {
            "a": StudyRef("p1", "s1", "train"),
            "b": StudyRef("p1", "s2", "train"),
            "c": StudyRef("p2", "s3", "test"),
            "d": StudyRef("p3", "s4", "validate"),
        },
    )
    assert overlap == {
        "images_by_split": {"train": 2, "validate": 0, "test": 1},
        "patients_by_split": {"train": 1, "validate": 0, "test": 1},
        "images_absent": 1,
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "dicom_id,x\n", "no column 'category_name', 'label_text', 'y'"),
        ("a.csv", "dicom_id,category_name,label_text,x,y,w,h\ni,c,l,1,,3,4\n", "line 2: a box is"),
        ("a.csv", "dicom_id,category_name,label_text,x,y,w,h\ni,c,l,1,2,0,4\n", "0.0 x 4.0 pixels"),
        ("a.csv", "dicom_id,category_name,label_text,x,y,w,h\ni,c,l,inf,2,3,4\n", "at inf, 2.0"),
        ("a.csv", "dicom_id,category_name,label_text,x,y,w,h\n", "no row below its header"),
        ("a.csv", "dicom_id,category_name,label_text,x,y,w,h\ni,,l,1,2,3,4\n", "line 2: category"),
        (
            "a.json",
            '{"images": [{"id": 1, "path": "a"}], "categories": [{"id": 1, "name": "c"}], '
            '"annotations": [{"image_id": 1, "category_id": 1, "label_text": ["l"]}]}',
            "not MS-CXR's COCO layout.*is a list.*fetch it again",
        ),
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[" * 100_000, "not valid JSON"),
        ("a.json", '{"images": []}', "not MS-CXR's COCO layout"),
    ],
    ids=range(10),
)
def test_foreign_files_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        read_ms_cxr(file)


def test_a_phrase_of_null_is_no_word(tmp_path: Path) -> None:
    path = _write_json(tmp_path / "boxes.json")
    path.write_text(path.read_text().replace('"small left effusion"', "null"))
    assert [each.box.phrase for each in read_ms_cxr(path)["image-1"]] == ["", ""]


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: no such file"):
        read_ms_cxr(tmp_path / "none.json")
