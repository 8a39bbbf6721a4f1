from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data_shards.building.settings import ShardsConfig
from data_shards.checking.verify import verify_shards
from data_shards.errors import InputError
from data_shards.images.conversion import convert_mask
from data_shards.profiles import validate
from data_shards.records.study import Box
from data_shards.sources.object_cxr import ObjectCxrConfig
from tests.data_shards.building.whole import build_shards
from tests.data_shards.sources.tables_on_disk import samples_of, source_of, write_lines

ROWS = (
    "image_name,annotation",
    "00001.jpg,0 10 20 30 60;1 40 5 60 25",
    "00002.jpg,2 4 2 20 2 4 30",
    "00003.jpg,",
)
WIDTH, HEIGHT = 64, 80


def archive(root: Path, *rows: str) -> Path:
    write_lines(root / "train.csv", *(rows or ROWS))
    write_lines(root / "dev.csv", "image_path,annotation", "/x/dev/08001.jpg,")
    for name in ("train/00001", "train/00002", "train/00003", "dev/08001"):
        path = root / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (WIDTH, HEIGHT)).save(path)
    return root


def mask_of(root: Path, study: str, **settings: str) -> NDArray[np.bool_]:
    [mask] = samples_of(source_of(ObjectCxrConfig, root=root, **settings))[study].masks
    pixels = np.asarray(Image.open(io.BytesIO(mask.path.read_bytes()))) > 0
    assert pixels.shape == (HEIGHT, WIDTH)
    return pixels


def test_three_kinds_of_shapes_are_boxes_and_filled(tmp_path: Path) -> None:
    samples = samples_of(source_of(ObjectCxrConfig, root=archive(tmp_path)))
    assert [(box.x, box.y, box.width, box.height) for box in samples["00001"].boxes] == [
        (10, 20, 20, 40),
        (40, 5, 20, 20),
    ]
    assert samples["00002"].boxes == (Box(0, 4, 2, 16, 28, "Foreign object"),)
    mask = mask_of(tmp_path, "00001")
    assert mask[20:61, 10:31].all()
    assert mask[15, 50]
    # The corner of an ellipse's box is outside of it.
    assert not mask[5, 40]
    assert mask[5:26, 40:61].mean() == pytest.approx(np.pi / 4, abs=0.05)
    triangle = mask_of(tmp_path, "00002")
    assert triangle[3, 18]
    assert triangle[28, 4]
    assert not triangle[28, 18]


def test_the_authors_targets_are_a_named_choice(tmp_path: Path) -> None:
    root = archive(tmp_path)
    samples = samples_of(source_of(ObjectCxrConfig, root=root, geometry="authors"))
    first = samples["00001"].boxes[0]
    assert (first.width, first.height) == (40, 20)
    assert mask_of(root, "00001", geometry="authors")[5, 40]
    triangle = mask_of(root, "00002", geometry="authors")
    assert triangle[4, 28]
    assert not triangle[28, 4]


@pytest.mark.parametrize(("orientation", "size"), [("upright", (80, 64)), ("as_stored", (64, 80))])
def test_a_mask_is_drawn_over_its_image_as_that_is_taken(
    orientation: str, size: tuple[int, int], tmp_path: Path
) -> None:
    root = archive(tmp_path)
    turned = Image.Exif()
    turned[0x0112] = 6
    path = root / "train/00001.jpg"
    Image.new("L", (WIDTH, HEIGHT)).save(path, exif=turned)
    source = source_of(ObjectCxrConfig, root=root, orientation=orientation)
    [mask] = samples_of(source)["00001"].masks
    as_stored = orientation == "as_stored"
    found = convert_mask(mask.path, original=size, stored=size, as_stored=as_stored)
    pixels = np.asarray(Image.open(io.BytesIO(found)))
    assert pixels.shape == size[::-1]
    assert pixels[20:61, 10:31].all()


def test_a_tall_object_at_the_edge_keeps_the_authors_box_which_reaches_out(tmp_path: Path) -> None:
    root = archive(tmp_path, ROWS[0], "00001.jpg,0 50 10 60 70", *ROWS[2:])
    Image.linear_gradient("L").resize((WIDTH, HEIGHT)).save(root / "train" / "00001.jpg")
    values = {"output": tmp_path / "shards", "workers": 1, "validate_fraction": 0}
    source = {"name": "object_cxr", "root": root, "geometry": "authors"}
    for outside in ({}, {"boxes_outside": "stop"}):
        config = validate(ShardsConfig, {**values, "source": source | outside}, where="test")
        if outside:
            with pytest.raises(InputError, match=r"reaches out of its image of 64 x 80 px"):
                build_shards(config.model_copy(update={"output": tmp_path / "stopped"}))
        else:
            build_shards(config)
            tar = (config.output / "train-000000.tar").read_bytes()
            assert b'"width": 60.0, "x": 50.0' in tar
            assert verify_shards(config.output, workers=1).problems == ()


def test_dev_is_the_test_split_and_empty_cells_are_negative(tmp_path: Path) -> None:
    samples = samples_of(source_of(ObjectCxrConfig, root=archive(tmp_path)))
    assert {study: sample.split for study, sample in samples.items()} == {
        "00001": None,
        "00002": None,
        "00003": None,
        "08001": "test",
    }
    assert samples["00003"].labels == {"Foreign object": 0}
    assert samples["00003"].masks == ()


def test_images_that_no_table_names_are_counted(tmp_path: Path) -> None:
    root = archive(tmp_path, *ROWS[:3])
    (root / "dev" / "09000.jpg").touch()
    dropped = source_of(ObjectCxrConfig, root=root).list_dropped_images()
    assert [(each.key, each.reason) for each in dropped] == [
        ("dev/09000", "not in the table of objects"),
        ("train/00003", "not in the table of objects"),
    ]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("3 1 2 3 4", "line 2: annotation '3 1 2 3 4': expected 0 or 1 with x1 y1 x2 y2"),
        ("0 1 2 3", "line 2: annotation '0 1 2 3'"),
        ("2 1 2 3 4", "line 2: annotation '2 1 2 3 4'"),
        ("0 1 2 x 4", "line 2: column 'annotation' is 'x': a number is wanted"),
        ("0 5 2 5 9", "line 2: annotation '0 5 2 5 9' has no area"),
    ],
)
def test_what_is_no_shape_is_refused_with_its_line(cell: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        source_of(
            ObjectCxrConfig, root=archive(tmp_path, ROWS[0], f"00001.jpg,{cell}")
        ).list_studies()


def test_a_table_without_names_of_images_is_refused(tmp_path: Path) -> None:
    root = archive(tmp_path, "picture,annotation", "00001.jpg,")
    with pytest.raises(InputError, match="no column 'image_name'"):
        source_of(ObjectCxrConfig, root=root).list_studies()
