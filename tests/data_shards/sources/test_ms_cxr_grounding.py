from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.sources.ms_cxr_grounding import MsCxrConfig
from tests.data_shards.sources.tables_on_disk import samples_of, source_of, write_lines

PATHS = [f"files/p10/p1000000{n}/s5000000{n}/a{n}.jpg" for n in (1, 2)]
HEADER = "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height"
ROWS = (
    f"a1,Pneumonia,left opacity,{PATHS[0]},1,2,3,4,90,90",
    f"a1,Pneumonia,left opacity,{PATHS[0]},11,2,3,4,90,90",
    f"a1,Edema,Mild edema.,{PATHS[0]},5,5,5,5,90,90",
    f"a2,Edema,edema,{PATHS[1]},5,5,5,5,90,90",
)


def table(root: Path, *, split: bool) -> Path:
    splits = ("test", "test", "test", "val")
    rows = [f"{row},{name}" if split else row for row, name in zip(ROWS, splits, strict=True)]
    return write_lines(root / "ms_cxr.csv", f"{HEADER},split" if split else HEADER, *rows)


def test_phrases_boxes_and_splits_are_those_of_the_table(tmp_path: Path) -> None:
    file = table(tmp_path, split=True)
    samples = samples_of(source_of(MsCxrConfig, annotations=file, image_root=tmp_path))
    one = samples["50000001"]
    assert (one.patient_id, one.split) == ("10000001", "test")
    assert [(box.phrase, box.x) for box in one.boxes] == [
        ("left opacity", 1),
        ("left opacity", 11),
        ("Mild edema.", 5),
    ]
    assert one.report.sentences == {"findings": ("left opacity.", "Mild edema.")}
    assert str(one.images[0].path) == f"{tmp_path}/{PATHS[0]}"
    assert samples["50000002"].split == "validate"


def test_release_1_0_and_whoever_asks_draw_the_split(tmp_path: Path) -> None:
    for split, settings in ((False, {}), (True, {"split": "drawn"})):
        file = table(tmp_path, split=split)
        source = source_of(MsCxrConfig, annotations=file, image_root=tmp_path, **settings)
        assert {ref.split for ref in source.list_studies()} == {None}


def test_coco_gives_the_same_studies(tmp_path: Path) -> None:
    csv_samples = samples_of(
        source_of(MsCxrConfig, annotations=table(tmp_path, split=False), image_root=tmp_path)
    )
    boxes = [(0, 0, "left opacity", 1), (0, 0, "left opacity", 11)]
    value = {
        "categories": [{"id": 0, "name": "Pneumonia"}, {"id": 1, "name": "Edema"}],
        "images": [{"id": n, "path": path} for n, path in enumerate(PATHS)],
        "annotations": [
            *(
                {"image_id": i, "category_id": c, "label_text": text, "bbox": [x, 2, 3, 4]}
                for i, c, text, x in boxes
            ),
            *(
                {"image_id": i, "category_id": 1, "label_text": text, "bbox": [5, 5, 5, 5]}
                for i, text in ((0, "Mild edema."), (1, "edema"))
            ),
        ],
    }
    file = tmp_path / "ms_cxr.json"
    file.write_text(json.dumps(value))
    samples = samples_of(source_of(MsCxrConfig, annotations=file, image_root=tmp_path))
    assert {study: sample.boxes for study, sample in samples.items()} == {
        study: sample.boxes for study, sample in csv_samples.items()
    }


def test_a_path_that_is_none_of_mimic_cxrs_is_refused(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "ms_cxr.csv", HEADER, "a1,Edema,edema,x/a1.jpg,5,5,5,5,90,90")
    with pytest.raises(InputError, match=r"line 2: path 'x/a1.jpg': expected files/p10"):
        source_of(MsCxrConfig, annotations=file, image_root=tmp_path).list_studies()
