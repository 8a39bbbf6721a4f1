import shutil
from pathlib import Path
from typing import Any

import pytest

from data_shards.building.build import build
from data_shards.building.settings import ShardsConfig
from data_shards.errors import InputError
from data_shards.profiles import validate
from tests.data_shards.sources.archives import csv_pairs, mimic_cxr
from tests.data_shards.sources.tiny_archive import TinyImage

IMAGES = (
    TinyImage("image-a", "10000001", "50000001"),
    TinyImage("image-b", "10000002", "50000002", split="validate"),
    TinyImage("image-c", "12000003", "50000003", split="test"),
)


@pytest.mark.parametrize(
    ("archive", "folder", "setting"),
    [(csv_pairs, "images", "source.image_root"), (mimic_cxr, "files", "source.root")],
)
@pytest.mark.parametrize("bad_images", ["stop", "drop"])
def test_where_no_image_can_be_the_folder_and_its_setting_are_named(
    tmp_path: Path, archive: Any, folder: str, setting: str, bad_images: str
) -> None:
    source = archive.write(tmp_path / "archive", IMAGES)
    (found,) = (path for path in (tmp_path / "archive").rglob(folder) if any(path.rglob("image-*")))
    values = {"source": source, "output": tmp_path / "shards", "bad_images": bad_images}
    config = validate(ShardsConfig, {**values, "workers": 1}, where="test")
    shutil.rmtree(found)
    with pytest.raises(InputError, match=f"{folder}: no such folder, .*: check {setting}$"):
        build(config)
    found.write_bytes(b"")
    with pytest.raises(InputError, match=f"{folder}: a file, not a folder, .*: check {setting}$"):
        build(config)
    assert not config.output.exists()
