from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_shards.errors import InputError
from data_shards.phantom.layouts.siim_acr import relative_runs
from data_shards.sources.siim_acr import SiimAcrConfig, draw_runs
from tests.data_shards.sources.tables_on_disk import samples_of, source_of, touch, write_lines

HEADER = "ImageId, EncodedPixels"


def archive(root: Path, *rows: str) -> Path:
    write_lines(root / "train-rle.csv", HEADER, *rows)
    touch(root / "dicom-images-train", ("s1/t1/1.2.dcm", "s2/t2/1.3.dcm", "s3/t3/1.4.dcm"))
    return root


def mask_of(root: Path, study: str) -> list[list[int]]:
    [mask] = samples_of(source_of(SiimAcrConfig, root=root, side_px=4))[study].masks
    assert mask.category == "Pneumothorax"
    pixels: list[list[int]] = np.asarray(Image.open(io.BytesIO(mask.path.read_bytes()))).tolist()
    return pixels


def test_runs_are_relative_and_go_down_the_columns(tmp_path: Path) -> None:
    # Pixels 1 and 2 of column 0; then a gap of 3: the last of column 1 and the first of column 2.
    assert mask_of(archive(tmp_path, "1.2, 1 2 4 2"), "1.2") == [
        [0, 0, 255, 0],
        [255, 0, 0, 0],
        [255, 0, 0, 0],
        [0, 255, 0, 0],
    ]


def test_rows_of_an_image_are_united_and_each_counts_from_its_own_start(tmp_path: Path) -> None:
    rows = ("1.2, 0 1", "1.3,  -1", "1.2, 15 1")
    assert mask_of(archive(tmp_path, *rows), "1.2") == [
        [255, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 255],
    ]
    source = source_of(SiimAcrConfig, root=tmp_path, side_px=4)
    samples = samples_of(source)
    assert {study: sample.labels for study, sample in samples.items()} == {
        "1.2": {"Pneumothorax": 1},
        "1.3": {"Pneumothorax": 0},
    }
    assert samples["1.3"].masks == ()
    [dropped] = source.list_dropped_images()
    assert (dropped.key, dropped.reason) == ("1.4", "not in the table of masks")


def test_what_was_encoded_comes_back() -> None:
    random = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.98):
        mask = random.random((32, 32)) < share
        words = list(map(int, relative_runs(mask).split()))
        end, runs = 0, []
        for gap, length in zip(words[::2], words[1::2], strict=True):
            runs.append((end + gap, length))
            end += gap + length
        assert np.array_equal(draw_runs(tuple(runs), 32), mask)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (("1.2, 1 2 3",), r"line 2: EncodedPixels '1 2 3': pairs of whole numbers are wanted"),
        (("1.2, a b",), "line 2: EncodedPixels 'a b'"),
        (("1.2,",), "line 2: EncodedPixels ''"),
        (("1.2, 10 7",), "line 2: EncodedPixels: a run ends at pixel 17, where 4 x 4 px have 16"),
        (("1.2, -1", "1.2, 0 1"), "line 3: image 1.2 is negative .-1. in one line and has runs"),
        ((", 0 1",), "line 2: column 'ImageId' is empty"),
    ],
)
def test_what_makes_no_mask_is_refused_with_its_line(
    rows: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        source_of(SiimAcrConfig, root=archive(tmp_path, *rows), side_px=4).list_studies()


def test_two_files_of_one_image_are_refused(tmp_path: Path) -> None:
    archive(tmp_path, "1.2, -1")
    touch(tmp_path / "dicom-images-train", ("other/series/1.2.dcm",))
    with pytest.raises(InputError, match="has the same name"):
        source_of(SiimAcrConfig, root=tmp_path).list_studies()
