"""Tars that others wrote: jpg with txt or json, odd members, damage, and names that lead out."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_shards.__main__ import main
from data_shards.building.settings import ShardsConfig
from data_shards.errors import InputError
from data_shards.profiles import validate
from data_shards.records.manifest import Manifest
from data_shards.records.study import StudyRecord
from distributed_pretrain.data.shards import ShardSplit
from tests.data_shards.building.whole import build_shards
from tests.data_shards.sources.archives.webdataset import write_tar

TEXT = b"The lungs are clear. No effusion."


def picture(number: int = 0, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (30, 40), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


class Shards:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "tars").mkdir()

    def build(self, **source: Any) -> Manifest:
        values = {
            "source": {
                "name": "webdataset",
                "folder": self.root / "tars",
                "default_view": "PA",
                "patient_pattern": "(.+)",
                **source,
            },
            "output": self.root / "shards",
            "validate_fraction": 0,
            "test_fraction": 0,
            "longest_side_px": 32,
            "workers": 1,
        }
        return build_shards(validate(ShardsConfig, values, where="test"))

    def write(self, name: str, *members: tuple[str, bytes]) -> None:
        write_tar(self.root / "tars" / name, members)

    def records(self, split: Any = "train") -> list[StudyRecord]:
        samples = ShardSplit(self.root / "shards", split, "lovt")
        return [samples.read(position) for position in range(len(samples))]


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    return Shards(tmp_path)


def pairs(*numbers: int) -> list[tuple[str, bytes]]:
    members = []
    for number in numbers:
        members += [(f"p{number // 2}_s{number}.jpg", picture(number))]
        members += [(f"p{number // 2}_s{number}.txt", TEXT)]
    return members


def test_images_with_texts_by_the_names_of_tars_and_keys(shards: Shards) -> None:
    shards.write("train-000.tar", *pairs(0, 1, 2))
    shards.write("val-000.tar", *pairs(6, 7))
    manifest = shards.build(patient_pattern="(p[0-9]+)_.*", split_by_tar_name=True)
    assert manifest.samples_by_split == {"train": 3, "validate": 2, "test": 0}
    assert manifest.patients_by_split == {"train": 2, "validate": 1, "test": 0}
    assert {each.patient_id for each in shards.records()} == {"p0", "p1"}
    sentences = ("The lungs are clear.", "No effusion.")
    assert shards.records("validate")[0].report.sentences == {"free text": sentences}


def test_a_patient_in_tars_of_two_splits_is_refused(shards: Shards) -> None:
    shards.write("train-000.tar", *pairs(0))
    shards.write("test-000.tar", *pairs(1))
    with pytest.raises(InputError, match=r"test-000.tar.*|train-000.tar.* p0 is in two splits"):
        shards.build(patient_pattern="(p[0-9]+)_.*", split_by_tar_name=True)


def test_tars_without_an_image_of_a_known_kind_are_told_what_they_hold(shards: Shards) -> None:
    shards.write("a.tar", ("p0_s0.webp", b"RIFF"), ("p0_s0.txt", TEXT))
    with pytest.raises(InputError, match=r"no image of the kinds jpg, .*: there are txt, webp: "):
        shards.build()


def test_a_sample_of_several_images_is_one_study_with_its_pixels(shards: Shards) -> None:
    first, second = picture(1, "PNG"), picture(2, "PNG")
    said = {"caption": TEXT.decode(), "subject": 12, "extra": [1, {"a": None}]}
    shards.write(
        "a.tar",
        ("folder/k.0.png", first),
        ("folder/k.1.PNG", second),
        ("folder/k.json", json.dumps(said).encode()),
    )
    shards.build(fields={"patient_id": "subject", "report": "caption"}, patient_pattern=None)
    (record,) = shards.records()
    assert (record.patient_id, record.study_id) == ("12", "folder/k")
    assert [image.id for image in record.images] == ["folder/k.0", "folder/k.1"]
    samples = ShardSplit(shards.root / "shards", "train", "lovt")
    for number, original in enumerate((first, second)):
        stored = Image.open(io.BytesIO(samples.read_member(0, f"image{number}.jpg")))
        expected = Image.open(io.BytesIO(original)).resize(stored.size, Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(stored, int) - np.asarray(expected, int)).mean() < 4


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def test_members_of_other_kinds_are_counted_and_never_run(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shards.root)
    kinds = ("pkl", "pyd", "pth", "cls")
    bombs = [(f"p0_s0.{kind}", pickle.dumps(Bomb())) for kind in kinds]
    without = [("alone.txt", TEXT), ("link", b"")]
    shards.write("a.tar", *pairs(0), *bombs, *without)
    manifest = shards.build()
    assert manifest.dropped_by_reason == {"a sample without an image": 1}
    counts = json.loads((shards.root / "shards" / "members_not_read.json").read_text())
    assert counts == dict.fromkeys(kinds, 1)
    assert not (shards.root / "exploded").exists()


def test_names_that_lead_out_of_the_tar_are_only_names(shards: Shards) -> None:
    names = ("../../out/k", "/etc/k", "./k")
    members = [(f"{name}.{kind}", each) for name in names for kind, each in _pair()]
    shards.write("a.tar", *members)
    shards.build()
    assert len(shards.records()) == len(names)
    assert sorted(path.name for path in shards.root.iterdir()) == ["shards", "tars"]


def _pair() -> tuple[tuple[str, bytes], ...]:
    return ("jpg", picture()), ("txt", TEXT)


@pytest.mark.parametrize(
    ("members", "source", "said"),
    [
        (pairs(0)[:1], {}, r"a.tar/p0_s0.jpg: image p0_s0 has no report"),
        ([("k.jpg", picture()), ("k.txt", b"\xff\xfe")], {}, r"a.tar/k.txt: not UTF-8"),
        ([*pairs(0), ("p0_s0.png", picture())], {}, r"image p0_s0 .*duplicate ids.*source.images"),
        ([*pairs(0), *pairs(1), *pairs(0)], {}, r"sample p0_s0: duplicate ids: member jpg"),
        ([*pairs(0), pairs(0)[1]], {}, r"sample p0_s0: duplicate ids: member txt"),
        (pairs(0), {"patient_pattern": "x([0-9]+)"}, r"sample p0_s0: its key does not match"),
        (
            pairs(0),
            {"split_by_tar_name": True},
            r"sample p0_s0: column 'split': split 'a': expected train",
        ),
        (pairs(0), {"tars": "train-*.tar"}, r"no file matches source.tars='train-\*.tar'"),
        ([("k.jpg", b"")], {"bad_reports": "drop"}, r"left|no samples"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_tar_and_sample(
    shards: Shards, members: list[tuple[str, bytes]], source: dict[str, Any], said: str
) -> None:
    shards.write("a.tar", *members)
    with pytest.raises(InputError, match=said):
        shards.build(**source)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"[" * 100_000, "not valid JSON"),
        (b'{"report": "Clear.", "report": "Not clear."}', "'report' is there twice"),
        (b"[]", "not an object"),
        (b'{"text": ["a"], "id": "1"}', "'text' is neither text"),
        (b'{"text": "a", "id": true}', "'id' is neither text"),
        (b'{"text": "a", "id": 1.5}', "'id' is neither text"),
        (b'{"text": "a", "id": null}', "'id' is empty"),
        (b'{"text": "a", "patient": 1}', "no field 'id': there are text, patient"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_json_without_what_is_needed_is_refused(shards: Shards, value: bytes, said: str) -> None:
    shards.write("a.tar", ("k.jpg", picture()), ("k.json", value))
    fields = {"report": "text", "patient_id": "id"}
    with pytest.raises(InputError, match=f"a.tar.*k.*{said}"):
        shards.build(fields=fields, patient_pattern=None)


def test_a_tar_that_is_cut_or_none_at_all_is_refused(shards: Shards) -> None:
    shards.write("a.tar", *pairs(0, 1, 2))
    path = shards.root / "tars" / "a.tar"
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0"))
    for cut in (0, 100, 512, 700, end // 2, end - 300):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"a.tar: not a whole tar"):
            shards.build()
    path.write_bytes(b"<html>" + bytes(5000))
    with pytest.raises(InputError, match=r"a.tar: not a whole tar"):
        shards.build()


def test_whose_the_samples_are_has_to_be_said(shards: Shards) -> None:
    shards.write("a.tar", *pairs(0))
    with pytest.raises(InputError, match=r"patient_pattern='\(\.\+\)'"):
        shards.build(patient_pattern=None)


def test_tars_of_others_are_known_where_shards_are_asked_for(
    shards: Shards, capsys: pytest.CaptureFixture[str]
) -> None:
    shards.write("a.tar", *pairs(0))
    folder = shards.root / "tars"
    for output, said in ((folder, "source.folder="), (folder / "a.tar", "is a file")):
        assert main(["verify", "configs/shards/phantom.yaml", f"output={output}"]) == 2
        assert said in capsys.readouterr().err
        with pytest.raises(InputError, match=said):
            ShardSplit(output, "train", "lovt")
