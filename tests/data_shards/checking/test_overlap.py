"""What two shard folders share: patients, images, and pictures that are nearly the same."""

from __future__ import annotations

import csv
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from data_shards.building.settings import ShardsConfig
from data_shards.checking.overlap import (
    NEAR_BITS,
    StoredImage,
    difference_hash,
    find_overlap,
    near_pairs,
    read_mapping,
    report_overlap,
)
from data_shards.errors import InputError
from data_shards.profiles import validate
from tests.data_shards.building.whole import build_shards


def picture(seed: int, *, side: int = 120, contrast: float = 1.0) -> Image.Image:
    """A smooth random picture; its size and contrast change, what it shows does not."""
    coarse = np.random.default_rng(seed).integers(40, 200, (12, 12), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((480, 480), Image.Resampling.BICUBIC)
    image = image.filter(ImageFilter.GaussianBlur(4)).resize((side, side), Image.Resampling.BICUBIC)
    return image.point([round(127 + contrast * (level - 127)) for level in range(256)])


def shards(root: Path, rows: list[tuple[str, str, str, Image.Image]], **changes: Any) -> Path:
    """A folder of studies of (image, patient, split, picture)."""
    root.mkdir()
    lines = [("image", "patient_id", "split", "report")]
    for name, patient, split, image in rows:
        image.save(root / f"{name}.png")
        lines.append((f"{name}.png", patient, split, "Clear lungs."))
    with (root / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    values = {
        "source": {
            "name": "csv_pairs",
            "table": root / "pairs.csv",
            "image_root": root,
            "columns": {"report": "report", "split": "split"},
            "default_view": "PA",
        },
        "output": root / "shards",
        "longest_side_px": 96,
        "workers": 1,
        **changes,
    }
    build_shards(validate(ShardsConfig, values, where="test"))
    return root / "shards"


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Both have patient p1 and image same.png; copy.png is other.png, smaller and duller."""
    one = shards(
        tmp_path / "one",
        [
            ("same", "p1", "train", picture(1)),
            ("other", "p2", "train", picture(2)),
            ("alone", "p3", "test", picture(3)),
        ],
    )
    other = shards(
        tmp_path / "two",
        [
            ("same", "p1", "test", picture(1)),
            ("copy", "q2", "test", picture(2, side=70, contrast=0.7)),
            ("far", "q3", "train", picture(4)),
        ],
    )
    return one, other


def test_shared_patients_images_and_copies_are_found_with_their_splits(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    save = tmp_path / "overlap.json"
    told = report_overlap(
        *two, mapping=None, key=None, near_bits=NEAR_BITS, save=save, workers=1
    ).splitlines()
    assert told[1:4] == [
        "patients of one id: 1 (train/test 1)",
        "images of one id: 1 (train/test 1)",
        "near-duplicates: 2 (train/test 2)",
    ]
    found = json.loads(save.read_text())
    assert found["patients"] == ["p1"]
    assert found["images"] == ["same.png"]
    pairs = {tuple(pair["images"]) for pair in found["near"]}
    assert pairs == {("same.png", "same.png"), ("other.png", "copy.png")}


def test_a_mapping_makes_ids_of_both_sets_one(two: tuple[Path, Path], tmp_path: Path) -> None:
    table = tmp_path / "ids.csv"
    table.write_text("a,b\np2,q2\nother.png,copy.png\n")
    found = find_overlap(*two, mapping=read_mapping(table))
    assert found.patients == ("p1", "q2")
    assert found.images == ("copy.png", "same.png")
    (tmp_path / "rsna.json").write_text(
        json.dumps([{"subset_img_id": "p2", "img_id": "q2_000.png"}])
    )
    mapped = read_mapping(tmp_path / "rsna.json")
    assert mapped.images == {"p2": "q2_000"}
    assert find_overlap(*two, mapping=mapped).patients == ("p1", "q2")
    (tmp_path / "bad.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match="not the mapping of RSNA to NIH"):
        read_mapping(tmp_path / "bad.json")


def test_with_the_key_of_both_hashed_ids_join_too(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 32)
    rows = [("same", "p1", "train", picture(1)), ("x", "p2", "train", picture(2))]
    one = shards(tmp_path / "one", rows, hash_ids=key)
    other = shards(tmp_path / "two", [("z", "q2", "train", picture(9))], hash_ids=key)
    table = tmp_path / "ids.csv"
    table.write_text("a,b\np2,q2\n")
    found = find_overlap(one, other, mapping=read_mapping(table, key))
    [patient] = found.patients or ()
    assert "q2" not in patient


def test_ids_of_which_one_folders_are_hashes_are_not_said_to_differ(
    tmp_path: Path, two: tuple[Path, Path]
) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 32)
    hashed = shards(tmp_path / "hashed", [("same", "p1", "train", picture(1))], hash_ids=key)
    save = tmp_path / "overlap.json"
    for one, other in ((hashed, two[1]), (two[1], hashed)):
        told = report_overlap(
            one, other, mapping=None, key=None, near_bits=NEAR_BITS, save=save, workers=1
        ).splitlines()
        for what, line in zip(("patients", "images"), told[1:3], strict=True):
            assert line.startswith(f"{what} of one id: cannot be compared: the ids of {hashed} ")
        assert told[3].startswith("near-duplicates: 1 (")
        found = json.loads(save.read_text())
        assert found["hashed_alone"] == str(hashed)
        assert found["patients"] is found["images"] is found["patients_by_splits"] is None


def test_the_hash_stays_under_scale_and_contrast_and_tells_pictures_apart() -> None:
    def apart(one: Image.Image, other: Image.Image) -> int:
        words = zip(difference_hash(one), difference_hash(other), strict=True)
        return sum((a ^ b).bit_count() for a, b in words)

    for seed in range(8):
        first = picture(seed)
        assert apart(first, picture(seed, side=311, contrast=0.6)) <= NEAR_BITS
        assert apart(first, picture(seed + 100)) > 4 * NEAR_BITS


def test_pairs_are_found_in_every_block_and_memory_does_not_grow_with_both_sets() -> None:
    sides = 5000, 6000
    draw = np.random.default_rng(0)
    words = [draw.integers(2**63, size=(side, 4), dtype=np.uint64) for side in sides]
    same = [(0, 5999), (1023, 1024), (1024, 1023), (4999, 0)]
    for ours, theirs in same:
        words[1][theirs] = words[0][ours]
    one, other = (
        [
            StoredImage(f"p{n}", f"s{n}", f"{n}", "train", tuple(map(int, row)))
            for n, row in enumerate(each)
        ]
        for each in words
    )
    tracemalloc.start()
    found = near_pairs(one, other, NEAR_BITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {(int(pair.images[0]), int(pair.images[1])) for pair in found} == set(same)
    # All distances at once would be 60 MB, and with their words 300.
    assert peak < 30e6


def test_an_unfinished_folder_is_refused(two: tuple[Path, Path]) -> None:
    (two[1] / "manifest.json").unlink()
    with pytest.raises(InputError, match="no manifest"):
        find_overlap(*two)
