"""The tables of MIMIC-CXR-JPG: what other programs do to them, and what joins."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.building.inspect import inspect_source
from data_shards.building.settings import ShardsConfig
from data_shards.errors import InputError
from data_shards.profiles import validate
from data_shards.sources.base import Source
from data_shards.sources.mimic_cxr import MimicCxrConfig
from tests.data_shards.sources.archives.mimic_cxr import (
    write,
    write_packed,
    write_reports,
    write_tables,
)
from tests.data_shards.sources.tables_on_disk import source_of
from tests.data_shards.sources.tiny_archive import TinyImage

IMAGES = (
    TinyImage("image-a", "10000001", "50000001"),
    TinyImage("image-b", "10000001", "50000002"),
    TinyImage("image-c", "10000002", "50000003", split="test"),
)


def archive(root: Path, *images: TinyImage) -> Path:
    """Tables and reports, without images."""
    write_tables(root, images or IMAGES)
    write_reports(root, images or IMAGES)
    return root


def source(root: Path) -> Source:
    return source_of(MimicCxrConfig, root=root)


def test_studies_without_labels_are_counted_and_a_table_that_joins_none_is_refused(
    tmp_path: Path,
) -> None:
    root = archive(tmp_path)
    [said] = source(root).warnings()
    assert said.startswith("2 x a study without a line in the table of labels (first: 50000002): ")
    table = root / "mimic-cxr-2.0.0-chexpert.csv.gz"
    write_packed(table, "subject_id,study_id,Edema", "10000001,50000009,1.0")
    with pytest.raises(InputError, match=r"chexpert.csv.gz: none of the 3 studies in .*: fetch"):
        source(root).list_studies()
    table.unlink()
    assert source(root).warnings() == ()
    assert not any(row.labels for rows in source(root).studies.values() for row in rows)


def test_inspect_counts_the_labels(tmp_path: Path) -> None:
    values = {"source": write(tmp_path, IMAGES), "output": tmp_path / "shards", "workers": 1}
    config = validate(ShardsConfig, values | {"validate_fraction": 0}, where="test")
    assert "\nlabels (studies with 1): Atelectasis 1\n" in inspect_source(config)


@pytest.mark.parametrize(
    ("kind", "lines", "said"),
    [
        (
            "chexpert",
            ("subject_id,study_id,Edema", "10000001.0,50000001.0,1.0"),
            r"line 2: subject '10000001.0', study '50000001.0': expected 8 digits .*: fetch",
        ),
        (
            "split",
            ("dicom_id,split", "image-a,train", "image-b,train", "image-b,test"),
            "line 4: image image-b is in 'test', and before in 'train': keep one of them",
        ),
        (
            "metadata",
            ("dicom_id,subject_id,study_id,ViewPosition", "image-a,10000001,50000001,AP"),
            r"no line of 2 of the 3 images in \S+split.csv.gz \(first: image-b\): fetch both",
        ),
    ],
)
def test_tables_that_another_program_changed_or_cut_are_refused(
    kind: str, lines: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    root = archive(tmp_path)
    write_packed(root / f"mimic-cxr-2.0.0-{kind}.csv.gz", *lines)
    with pytest.raises(InputError, match=rf"{kind}.csv.gz: {said}"):
        source(root).list_studies()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((IMAGES[0], IMAGES[0]), r"line 3: image image-a is also in line 2: duplicate ids"),
        (
            (IMAGES[0], TinyImage("x", "10000002", "50000001")),
            "study 50000001 is of patient 10000002, and in line 2 of patient 10000001",
        ),
        (
            (IMAGES[0], TinyImage("x", "10000001", "50000002", split="test")),
            "patient 10000001 is in two splits",
        ),
        ((TinyImage("x", "10000001", "50000002", split="dev"),), "split 'dev': expected train"),
        ((TinyImage("x", "20000001", "50000002"),), "subject '20000001'"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(
    tmp_path: Path, lines: tuple[TinyImage, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        source(archive(tmp_path, *lines)).list_studies()
