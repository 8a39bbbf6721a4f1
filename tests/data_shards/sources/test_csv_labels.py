"""Labels, boxes and masks in the columns of any table, and tables as Parquet."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from data_shards.building.settings import ShardsConfig
from data_shards.checking.verify import verify_shards
from data_shards.errors import InputError
from data_shards.profiles import validate
from data_shards.records.study import Box
from data_shards.sources.csv_pairs import CsvPairsConfig
from tests.data_shards.building.whole import build_shards
from tests.data_shards.sources.tables_on_disk import samples_of, source_of, write_lines

HEADER = "image,patient_id,Effusion,Edema,x,y,w,h,what,lung"
ROWS = (
    "a.png,p1,1,-1,1,2,3,4,Nodule,a_lung.png",
    "a.png,p1,1,-1,5,6,7,8,Mass,a_lung.png",
    "b.png,p2,0,,,,,,,",
)
BOX = {"x": "x", "y": "y", "width": "w", "height": "h", "category": "what"}
COLUMNS: dict[str, Any] = {
    "labels": ["Effusion", "Edema"],
    "masks": {"Lung": "lung"},
    "box": BOX,
}


def values(root: Path, *rows: str, **columns: Any) -> dict[str, Any]:
    table = write_lines(root / "t.csv", HEADER, *(rows or ROWS))
    return {
        "table": table,
        "image_root": root,
        "columns": COLUMNS | columns,
        "default_view": "PA",
    }


def test_rows_of_a_box_each_are_one_image_with_labels_and_masks(tmp_path: Path) -> None:
    samples = samples_of(source_of(CsvPairsConfig, **values(tmp_path)))
    one = samples["a.png"]
    assert one.boxes == (Box(0, 1, 2, 3, 4, "Nodule"), Box(0, 5, 6, 7, 8, "Mass"))
    assert one.labels == {"Effusion": 1, "Edema": -1}
    assert [(mask.category, str(mask.path)) for mask in one.masks] == [
        ("Lung", f"{tmp_path}/a_lung.png")
    ]
    assert samples["b.png"].labels == {"Effusion": 0, "Edema": None}
    assert (samples["b.png"].boxes, samples["b.png"].masks) == ((), ())


def test_what_was_in_the_table_is_in_the_shards(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pixels = np.random.default_rng(0).integers(0, 255, (40, 30), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    Image.fromarray(np.eye(40, 30, dtype=np.uint8)).save(tmp_path / "a_lung.png")
    config = config_of(values(tmp_path), tmp_path)
    manifest = build_shards(config)
    assert manifest.samples_by_split["train"] == 2
    assert verify_shards(config.output, workers=1).problems == ()


def config_of(source: dict[str, Any], root: Path, **changes: Any) -> ShardsConfig:
    shards = {
        "source": {"name": "csv_pairs", **source, **changes},
        "output": root / "shards",
        "validate_fraction": 0,
        "test_fraction": 0,
        "workers": 1,
    }
    return validate(ShardsConfig, shards, where="test")


def test_a_box_that_reaches_out_of_its_image_stops_or_is_cut(tmp_path: Path) -> None:
    Image.new("L", (30, 40)).save(tmp_path / "a.png")
    source = values(tmp_path, "a.png,p1,1,,20,2,30,4,Nodule,")
    said = r"t.csv: line 2: image a.png: a box of 'Nodule' \(30 x 4 px at 20, 2\) reaches out of"
    with pytest.raises(InputError, match=said + r" its image of 30 x 40 px.*boxes_outside=clip"):
        build_shards(config_of(source, tmp_path, unknown_views="stop"))
    # An image of one value is told, and nothing can be learnt from it.
    Image.fromarray(np.arange(1200, dtype=np.uint16).astype(np.uint8).reshape(40, 30)).save(
        tmp_path / "a.png"
    )
    manifest = build_shards(config_of(source, tmp_path, boxes_outside="clip"))
    assert any("boxes that reached out of them" in each for each in manifest.warnings)
    assert b'"width": 10.0' in (tmp_path / "shards" / "train-000000.tar").read_bytes()
    kept = config_of(source, tmp_path, boxes_outside="keep")
    manifest = build_shards(kept.model_copy(update={"output": tmp_path / "kept"}))
    assert not any("reached out" in each for each in manifest.warnings)
    assert b'"width": 30.0' in (tmp_path / "kept" / "train-000000.tar").read_bytes()


@pytest.mark.parametrize("boxes_outside", ["stop", "clip", "keep"])
def test_a_box_beside_its_image_is_of_another_size_of_it_whatever_the_policy(
    boxes_outside: str, tmp_path: Path
) -> None:
    Image.new("L", (30, 40)).save(tmp_path / "a.png")
    source = values(tmp_path, "a.png,p1,1,,50,2,3,4,Mass,")
    said = "line 2: image a.png: a box of 'Mass' .* lies beside its image of 30 x 40 px: was it"
    with pytest.raises(InputError, match=said):
        build_shards(config_of(source, tmp_path, boxes_outside=boxes_outside))


def draw(root: Path, name: str, inside: tuple[slice, slice] | None = None) -> None:
    """A picture of 30 x 40 px, or a mask with that inside."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30), dtype=np.uint8)
    if inside is not None:
        pixels[:] = 0
        pixels[inside] = 1
    Image.fromarray(pixels).save(root / name)


def test_masks_of_rows_of_one_image_and_category_are_united(tmp_path: Path) -> None:
    draw(tmp_path, "a.png")
    draw(tmp_path, "one.png", np.s_[:10, :5])
    draw(tmp_path, "two.png", np.s_[20:30, 10:15])
    rows = (f"a.png,p1,1,,1,2,3,{n},Mass,{name}.png" for n, name in ((4, "one"), (5, "two")))
    config = config_of(values(tmp_path, *rows), tmp_path)
    build_shards(config)
    assert verify_shards(config.output, workers=1).problems == ()
    with tarfile.open(config.output / "train-000000.tar") as tar:
        [member] = [name for name in tar.getnames() if "mask" in name]
        file = tar.extractfile(member)
        assert file is not None
        mask = np.asarray(Image.open(io.BytesIO(file.read()))) > 0
    assert mask[:10, :5].all()
    assert mask[20:30, 10:15].all()
    assert mask.sum() == 100


def test_a_missing_mask_is_told_by_row_and_column_or_leaves_its_image_out(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path, name)
    draw(tmp_path, "b_lung.PNG", np.s_[:10, :5])
    rows = ("a.png,p1,1,,,,,,,", "b.png,p2,0,,,,,,,b_lung.png")
    source = values(tmp_path, *rows, box=None)
    said = r"t.csv: line 3: mask in column 'lung': \S+/b_lung.png: missing mask: restore .*"
    with pytest.raises(
        InputError, match=said + r"missing_images=drop \('b_lung.PNG' is there: mind"
    ):
        build_shards(config_of(source, tmp_path))
    dropping = config_of(source, tmp_path).model_copy(update={"missing_images": "drop"})
    manifest = build_shards(dropping)
    assert manifest.dropped_by_reason == {"missing mask": 1}
    assert manifest.samples_by_split["train"] == 1


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        (
            ("a.png,p1,2,,,,,,,",),
            {},
            "line 2: column '.*': label '2': expected 1, 0, -1 or nothing: correct",
        ),
        (("a.png,p1,1,,1,2,3,,Mass,",), {}, "line 2: column 'h' is '': a number is wanted"),
        (("a.png,p1,1,,1,2,3,4,,",), {}, "line 2: column 'what' is empty"),
        (("a.png,p1,1,,1,2,-3,4,Mass,",), {}, "line 2: a box of -3 x 4 pixels"),
        (("a.png,p1,1,,,,,,,", "a.png,p1,0,,,,,,,"), {}, "line 3: image a.png is also in line 2"),
        ((), {"labels": ["Oedema"]}, "no column 'Oedema'.*did you mean 'Edema'"),
    ],
)
def test_cells_that_make_no_sense_are_refused_with_their_line(
    rows: tuple[str, ...], columns: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        source_of(CsvPairsConfig, **values(tmp_path, *rows, **columns)).list_studies()


def test_a_table_of_nothing_but_images_is_refused() -> None:
    with pytest.raises(InputError, match="a table of labels, masks or box needs none"):
        source_of(CsvPairsConfig, table="t", image_root="r", columns={}, default_view="PA")


def test_parquet_is_read_as_the_same_table(tmp_path: Path) -> None:
    given = values(tmp_path)
    expected = samples_of(source_of(CsvPairsConfig, **given))
    rows: dict[str, list[Any]] = {
        "image": ["a.png", "a.png", "b.png"],
        "patient_id": ["p1", "p1", "p2"],
        "Effusion": [1, 1, 0],
        # Whole numbers with a gap are floats in pandas.
        "Edema": [-1.0, -1.0, float("nan")],
        "x": [1.0, 5.0, None],
        "y": [2.0, 6.0, None],
        "w": [3.0, 7.0, None],
        "h": [4.0, 8.0, None],
        "what": ["Nodule", "Mass", None],
        "lung": ["a_lung.png", "a_lung.png", None],
    }
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table(rows), path)
    found = samples_of(source_of(CsvPairsConfig, **(given | {"table": path})))
    for study, sample in expected.items():
        assert found[study].labels == sample.labels
        assert found[study].boxes == sample.boxes
        assert [str(mask.path) for mask in found[study].masks] == [
            str(mask.path) for mask in sample.masks
        ]


def test_damaged_and_absent_parquet_are_refused(tmp_path: Path) -> None:
    given = values(tmp_path)
    path = tmp_path / "t.parquet"
    with pytest.raises(InputError, match=r"t.parquet: no such table"):
        source_of(CsvPairsConfig, **(given | {"table": path})).list_studies()
    path.write_bytes(b"PAR1 and then something else")
    with pytest.raises(InputError, match=r"t.parquet: not a sound Parquet file") as error:
        source_of(CsvPairsConfig, **(given | {"table": path})).list_studies()
    assert "\n" not in str(error.value)
    parquet.write_table(pa.table({"image": ["a"], "other": [1]}), path)
    with pytest.raises(InputError, match="no column 'patient_id'"):
        source_of(CsvPairsConfig, **(given | {"table": path})).list_studies()
