"""What a build, and `verify` after it, says of images: counts by cause, warnings, settings."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_shards.__main__ import main
from data_shards.building.build import build
from data_shards.building.settings import ShardsConfig
from data_shards.checking.verify import verify_shards
from data_shards.errors import InputError
from data_shards.profiles import validate
from data_shards.records.manifest import read_manifest, read_shard_index
from tests.data_shards.building.whole import build_shards
from tests.data_shards.images.drawn import (
    QUARTERS,
    jpeg,
    noise,
    png,
    quarters,
    rows,
    scene,
    write,
)

MakeConfig = Callable[..., ShardsConfig]


@pytest.fixture
def table_of(tmp_path: Path) -> Callable[..., ShardsConfig]:
    """A config over the files of a folder, a study each; keywords change it, `source` within."""

    def make(names: Sequence[str], source: dict[str, Any] | None = None, **changes: Any) -> Any:
        with (tmp_path / "t.csv").open("w", newline="") as file:
            lines = [(name, f"p{number}", "No effusion.") for number, name in enumerate(names)]
            csv.writer(file).writerows([("image", "patient_id", "report"), *lines])
        values = {
            "name": "csv_pairs",
            "table": tmp_path / "t.csv",
            "image_root": tmp_path,
            "columns": {"report": "report"},
            "default_view": "PA",
        } | (source or {})
        shards = {"output": tmp_path / "shards", "workers": 1, "longest_side_px": 64}
        fractions = {"validate_fraction": 0, "test_fraction": 0}
        return validate(
            ShardsConfig, {"source": values, **shards, **fractions, **changes}, where="test"
        )

    return make


def images_in(tmp_path: Path) -> list[str]:
    """Files whose every one has something to it, and one that has not."""
    exif = Image.Exif()
    exif[0x0112] = 3
    write(tmp_path, "narrow.png", png(rows(scene(4095)), depth=16))
    write(tmp_path, "turned.jpg", jpeg(scene().astype(np.uint8), exif=exif))
    write(tmp_path, "black.png", png(rows(scene() * 0)))
    write(tmp_path, "line.jpg", jpeg(noise(300, 1)))
    write(tmp_path, "good.jpg", jpeg(noise()))
    return ["narrow.png", "turned.jpg", "black.png", "line.jpg", "good.jpg"]


def test_a_build_ends_with_counts_of_what_it_had_to_guess_and_says_them_again(
    tmp_path: Path, table_of: MakeConfig, capsys: pytest.CaptureFixture[str]
) -> None:

    config = table_of(images_in(tmp_path))
    told = build(config)
    warnings = [line for line in told.splitlines() if line.startswith("warning: ")]
    assert [line.split("images ")[1][:12] for line in warnings] == [
        "use fewer bi",
        "were turned ",
        "are of one v",
        "have a side ",
    ]
    assert all("1 of 5 " in line or "2 of 5 " in line for line in warnings)
    assert "12 bits of 16" in warnings[0]
    assert "64 x 1 px" in warnings[3]
    assert build(config) == told, "a build that goes on knows what the first one saw"
    manifest = read_manifest(config.output)
    assert [f"warning: {line}" for line in manifest.warnings] == warnings


def test_settings_of_the_source_reach_the_stored_pixels(
    tmp_path: Path, table_of: MakeConfig
) -> None:
    images_in(tmp_path)
    samples = scene(4095).astype(np.uint16)
    samples[0, :3] = 65535
    write(tmp_path, "narrow.png", png(rows(samples), depth=16))
    config = table_of(["narrow.png"], source={"bits": 12})
    [clipped] = build_shards(config).warnings
    assert clipped.startswith(
        "1 of 1 images have samples beyond the bits that count, stored as black or white "
        "(0.1 % of their samples: 1; first "
    )
    index = read_shard_index(config.output / "train-000000.index.json")
    place = index.samples[0].members["image0.jpg"]
    with (config.output / "train-000000.tar").open("rb") as file:
        write(tmp_path, "stored.jpg", place.read(file, tar_bytes=index.tar_bytes) or b"")
    found = quarters(np.asarray(Image.open(tmp_path / "stored.jpg")))
    assert np.abs(np.array(found) - QUARTERS).max() <= 1
    turned = table_of(
        ["turned.jpg"], source={"orientation": "as_stored"}, output=tmp_path / "as_stored"
    )
    assert build_shards(turned).warnings == ()


def test_verify_sees_pictures_of_nothing_as_well(tmp_path: Path, table_of: MakeConfig) -> None:

    config = table_of(images_in(tmp_path))
    build_shards(config)
    verification = verify_shards(config.output, workers=1)
    assert verification.problems == ()
    plain, small = verification.warnings
    assert "2 of 5 images are of one value or nearly" in plain
    assert "1 of 5 images have a side under 16 px" in small


def test_images_are_dropped_and_counted_each_by_its_own_reason(
    tmp_path: Path, table_of: MakeConfig
) -> None:
    write(tmp_path, "good.jpg", jpeg(noise()))
    write(tmp_path, "empty.png", b"")
    write(tmp_path, "page.jpg", b"<html>403</html>")
    write(tmp_path, "half.jpg", jpeg(noise())[:900])
    names = ["good.jpg", "gone.png", "empty.png", "page.jpg", "half.jpg", "good.jpg/inside.png"]
    manifest = build_shards(table_of(names, bad_images="drop"))
    assert manifest.dropped_by_reason == {
        "a web page or an error message of a server": 1,
        "an empty file": 1,
        "missing image": 2,
        "truncated or damaged image": 1,
    }
    assert manifest.samples_by_split["train"] == 1


@pytest.mark.parametrize("root", ["none", "t.csv"])
@pytest.mark.parametrize("bad_images", ["stop", "drop"])
def test_a_folder_that_is_not_there_is_the_cause_not_its_images(
    tmp_path: Path, table_of: MakeConfig, root: str, bad_images: str
) -> None:
    config = table_of(
        ["a.png", "b.png"], source={"image_root": tmp_path / root}, bad_images=bad_images
    )
    what = "no such folder" if root == "none" else "a file, not a folder"
    with pytest.raises(InputError, match=f"{root}: {what}, .*: check source.image_root$"):
        build_shards(config)
    assert not config.output.exists()


def test_where_all_were_dropped_the_remedy_is_that_of_what_dropped_them(
    profile: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (archive / "images").iterdir():
        path.write_bytes(b"")
    assert main(["build", str(profile), "bad_images=drop"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "split 'train' has no samples left (dropped: " in line
    assert "x an empty file" in line
    assert "bad_images=stop" in line


@pytest.mark.parametrize(
    "setting",
    [
        "source.bits=0",
        "source.bits=17",
        "source.bits=most",
        "source.bits=1.5",
        "source.orientation=left",
    ],
)
def test_settings_that_make_no_sense_are_refused(
    profile: Path, capsys: pytest.CaptureFixture[str], setting: str
) -> None:
    assert main(["build", str(profile), setting]) == 2
    said = capsys.readouterr().err
    assert setting.split("=")[0] + ": " in said
    assert "bits" not in setting or "a number of bits from 1 to 16 is wanted, or in_use" in said
