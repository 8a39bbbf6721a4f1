"""The archives of published sets, damaged in every way that an importer must refuse.

`CASES` has, by layout and refusal, what is done to the folder of an archive and a pattern of the
one line that says so: file, field or value, and what to do. `EXEMPT` says why one cannot arise.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from data_shards.phantom.layouts.dicom import dicom_bytes
from data_shards.phantom.settings import Layout

Damage = Callable[[Path], None]

REFUSALS = (
    "a missing table",
    "a missing column",
    "ids that do not join",
    "a box outside its image",
    "runs past the end",
    "a mask of another size",
    "another size of image",
    "one id with two contents",
)
MS_CXR = "MS_CXR_Local_Alignment_v1.1.0.csv"
METADATA = "mimic-cxr-2.0.0-metadata.csv.gz"
RSNA = "stage_2_train_labels.csv"
BOXES = "BBox_List_2017.csv"


class Refused(NamedTuple):
    damage: Damage
    said: str
    settings: Sequence[str] = ()


def gone(name: str) -> Damage:
    return lambda root: (root / name).unlink()


def renamed(name: str, column: str) -> Damage:
    return edited(name, lambda lines: [lines[0].replace(column, "other", 1), *lines[1:]])


def cells(name: str, *, where: str = "", added: bool = False, **changes: str) -> Damage:
    """Cells of the first row with `where` in it get other values, there or in a copy at the end."""

    def change(lines: list[str]) -> list[str]:
        names = [each.strip() for each in lines[0].split(",")]
        number = next(n for n, line in enumerate(lines) if n and where in line)
        row = lines[number].split(",")
        for column, value in changes.items():
            row[names.index(column.replace("_", " ") if column not in names else column)] = value
        if added:
            return [*lines, ",".join(row)]
        return [*lines[:number], ",".join(row), *lines[number + 1 :]]

    return edited(name, change)


def edited(name: str, change: Callable[[list[str]], list[str]]) -> Damage:
    def damage(root: Path) -> None:
        path = root / name
        packed = path.suffix == ".gz"
        content = path.read_bytes()
        before = (gzip.decompress(content) if packed else content).decode().splitlines()
        after = change(before)
        assert after != before, f"nothing was changed in {name}"
        text = "\n".join([*after, ""]).encode()
        path.write_bytes(gzip.compress(text) if packed else text)

    return damage


def with_report_twice(root: Path) -> None:
    """Another report of the first one's number."""
    path = root / "NLMCXR_reports.tgz"
    with tarfile.open(path) as archive:
        found = {each.name: archive.extractfile(each) for each in archive}
        texts = {name: file.read() for name, file in found.items() if file is not None}
    name, text = next(iter(texts.items()))
    texts[name.replace(".xml", "-again.xml")] = text.replace(b"<Abstract>", b"<Abstract >")
    with tarfile.open(path, "w:gz") as archive:
        for name, text in texts.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))


def mapped_twice(root: Path) -> None:
    path = root / "pneumonia-challenge-dataset-mappings_2018.json"
    pairs = json.loads(path.read_text())
    path.write_text(json.dumps([*pairs, pairs[0] | {"img_id": "00099999_000.png"}]))


def mask_of_another_size(folder: str) -> Damage:
    def damage(root: Path) -> None:
        for path in (root / folder).glob("*.png"):
            Image.fromarray(np.ones((60, 64), np.uint8)).save(path)

    return damage


def larger_dicoms(root: Path) -> None:
    larger = dicom_bytes(np.zeros((80, 80), np.uint8), name="1.2", view="PA", jpeg=False)
    for path in root.rglob("*.dcm"):
        path.write_bytes(larger)


def other_mask(root: Path) -> None:
    min((root / "pngs_masks").iterdir()).rename(root / "pngs_masks" / "p_1.png")


def same_name_twice(root: Path) -> None:
    path = min((root / "jpgs").iterdir())
    shutil.copy(path, path.with_suffix(".jpeg"))


def without_projection(root: Path) -> None:
    edited("indiana_projections.csv", lambda lines: lines[:-1])(root)


OUTSIDE = r"reaches out of its image of 64 x 64 px: correct it, or set source.boxes_outside=clip"
TWICE = r"is also in line \d+: duplicate ids: remove one"
SIZE = r"image \S+: boxes were drawn on 128 x 64 px, and \S+.jpg has 64 x 64 px: fetch the image"
MASK = r"a mask of \d+ x \d+ px over an image of \d+ x \d+ px: give the mask the size of its image"

CASES: dict[Layout, dict[str, Refused]] = {
    "mimic_cxr": {
        "a missing table": Refused(gone(METADATA), "metadata.*: no such|no .*metadata"),
        "a missing column": Refused(
            renamed(METADATA, "ViewPosition"), f"{METADATA}: no column 'ViewPosition': found"
        ),
        "ids that do not join": Refused(
            cells(METADATA, dicom_id="0" * 8 + "-" + "-".join(["0" * 8] * 4)), "line 2: .*split"
        ),
        "a box outside its image": Refused(cells(MS_CXR, x="60"), OUTSIDE),
        "another size of image": Refused(cells(MS_CXR, image_width="128"), SIZE),
        "a mask of another size": Refused(mask_of_another_size("masks"), MASK),
        "one id with two contents": Refused(cells(METADATA, added=True, ViewPosition="LL"), TWICE),
    },
    "ms_cxr": {
        "a missing table": Refused(gone(MS_CXR), f"{MS_CXR}: no such table"),
        "a missing column": Refused(renamed(MS_CXR, "label_text"), "no column 'label_text'"),
        "ids that do not join": Refused(
            cells(MS_CXR, dicom_id="0"), "line 2: dicom_id '0' is not that of the path"
        ),
        "a box outside its image": Refused(cells(MS_CXR, x="60"), OUTSIDE),
        "another size of image": Refused(cells(MS_CXR, image_width="128"), SIZE),
        "one id with two contents": Refused(
            cells(MS_CXR, added=True, split="validate"),
            r"image \S+ is .* in split 'validate', but in line 2 .* in 'train': keep one",
        ),
    },
    "openi": {
        "a missing table": Refused(gone("NLMCXR_reports.tgz"), "NLMCXR_reports.tgz: no such"),
        "a missing column": Refused(
            renamed("indiana_projections.csv", "projection"), "no column 'projection'"
        ),
        "ids that do not join": Refused(
            without_projection, "unknown view '': .*source.projections or source.default_view"
        ),
        "one id with two contents": Refused(
            with_report_twice, r"report CXR\d+ is also in .*: remove one of them"
        ),
    },
    "chexpert": {
        "a missing table": Refused(gone("valid.csv"), "valid.csv: no such table"),
        "a missing column": Refused(renamed("train.csv", "AP/PA"), "no column 'AP/PA'"),
        "ids that do not join": Refused(
            cells("train.csv", Path="train/patient00001/study9/view1_frontal.jpg"),
            "line 2: .*study9/view1_frontal.jpg: missing image",
        ),
        "one id with two contents": Refused(cells("train.csv", added=True, Edema="-1.0"), TWICE),
    },
    "rsna": {
        "a missing table": Refused(gone(RSNA), f"{RSNA}: no such table"),
        "a missing column": Refused(renamed(RSNA, "height"), "no column 'height'"),
        "ids that do not join": Refused(
            cells(RSNA, patientId="aa"), "line 2: image aa .*not in .*mapping|has no line in"
        ),
        "a box outside its image": Refused(cells(RSNA, x="60.0", where="1"), OUTSIDE),
        "one id with two contents": Refused(mapped_twice, r"image \S+ is NIH's .*: keep one"),
    },
    "siim_acr": {
        "a missing table": Refused(gone("train-rle.csv"), "train-rle.csv: no such table"),
        "a missing column": Refused(renamed("train-rle.csv", "ImageId"), "no column 'ImageId'"),
        "ids that do not join": Refused(
            cells("train-rle.csv", ImageId="1.2.3"), r"line 2: .*1\.2\.3\.dcm: missing image"
        ),
        "runs past the end": Refused(
            cells("train-rle.csv", EncodedPixels="4090 9"),
            "line 2: EncodedPixels: a run ends at pixel 4,099, where 64 x 64 px have 4,096: are",
        ),
        "a mask of another size": Refused(larger_dicoms, MASK),
        "one id with two contents": Refused(
            cells("train-rle.csv", added=True, where=" -1", EncodedPixels="1 2"),
            r"image \S+ is negative \(-1\) in one line and has runs in another: remove one",
        ),
    },
    "nih_boxes": {
        "a missing table": Refused(gone(BOXES), f"{BOXES}: no such table"),
        "a missing column": Refused(
            renamed("Data_Entry_2017.csv", "View Position"), "no column 'View Position'"
        ),
        "ids that do not join": Refused(
            cells(BOXES, Image_Index="00000001_999.png"),
            "line 2: image 00000001_999.png is not in Data_Entry_2017.csv: fetch both",
        ),
        "a box outside its image": Refused(
            edited(BOXES, lambda lines: [each.replace(",21.0,", ",60.0,") for each in lines]),
            OUTSIDE,
            ("source.boxes_outside=stop",),
        ),
        "one id with two contents": Refused(
            cells("Data_Entry_2017.csv", added=True, View_Position="L"),
            r"image \S+ says other than in line 2: keep one",
        ),
    },
    "object_cxr": {
        "a missing table": Refused(gone("dev.csv"), "dev.csv: no such table"),
        "a missing column": Refused(renamed("train.csv", "annotation"), "no column 'annotation'"),
        "ids that do not join": Refused(
            cells("train.csv", image_name="09999.jpg"), "line 2: .*09999.jpg: missing image"
        ),
        "a box outside its image": Refused(cells("train.csv", annotation="0 3 4 5 99"), OUTSIDE),
        "one id with two contents": Refused(
            cells("train.csv", added=True, annotation="0 1 2 3 4"), TWICE
        ),
    },
    "covid_rural": {
        "a missing table": Refused(
            lambda root: shutil.rmtree(root / "pngs_masks"), "pngs_masks: no such folder: check"
        ),
        "ids that do not join": Refused(
            other_mask,
            "jpgs/p_1.jpg: missing image",
        ),
        "a mask of another size": Refused(mask_of_another_size("pngs_masks"), MASK),
        "one id with two contents": Refused(same_name_twice, "has the same name: keep one"),
    },
}
NO_BOXES, NO_MASKS = "no boxes are published", "no masks are published"
DRAWN_FROM_BOXES = "masks are drawn in the size of their image"
EXEMPT: dict[Layout, dict[str, str]] = {
    "mimic_cxr": {},
    "ms_cxr": {"a mask of another size": NO_MASKS},
    "openi": {"a box outside its image": NO_BOXES, "a mask of another size": NO_MASKS},
    "chexpert": {"a box outside its image": NO_BOXES, "a mask of another size": NO_MASKS},
    "rsna": {"a mask of another size": NO_MASKS},
    "siim_acr": {"a box outside its image": NO_BOXES},
    "nih_boxes": {"a mask of another size": NO_MASKS},
    "object_cxr": {"a mask of another size": DRAWN_FROM_BOXES},
    "covid_rural": {"a missing column": "no table", "a box outside its image": NO_BOXES},
}
for _layout in EXEMPT:
    if _layout not in ("mimic_cxr", "ms_cxr"):
        EXEMPT[_layout]["another size of image"] = (
            "the size that boxes were drawn on is not published"
        )
    if _layout != "siim_acr":
        EXEMPT[_layout]["runs past the end"] = "no run lengths are published"
