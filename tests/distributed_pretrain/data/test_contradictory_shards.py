"""What documents of a shard folder must not say, of themselves or of each other.

Each is a change of the manifest, of an index or of a record, with all checksums made right again:
`verify` names it, and the reader refuses the folder or leaves the sample to the quarantine.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distributed_pretrain.data.changed_documents import (
    Document,
    assert_said,
    at,
    found_by_verify,
    said_by_reader,
    updated,
)
from tests.fuzz.sealing import read_rows, reseal_indexes, rewrite_members, write_rows

TAR, INDEX = "train-000000.tar", "train-000000.index.json"


def exchange_splits(manifest: Document) -> None:
    other = {"validate": "test", "test": "validate"}
    for entry in manifest["shards"]:
        entry["split"] = other.get(entry["split"], entry["split"])


def without_train(manifest: Document) -> None:
    manifest["shards"] = [each for each in manifest["shards"] if each["split"] != "train"]
    manifest["samples_by_split"]["train"] = 0


def without_one_shard(manifest: Document) -> None:
    del manifest["shards"][0]


def with_one_twice(manifest: Document) -> None:
    manifest["shards"].append(manifest["shards"][0])


def name_of(name: str) -> Callable[[Document], None]:
    return at("shards", 0, "tar_name", value=name)


MANIFEST: dict[str, tuple[Callable[[Document], None], str]] = {
    "splits exchanged": (exchange_splits, "is listed as a shard of"),
    "a shard left out": (without_one_shard, "samples in train, but its shards hold"),
    "a shard twice": (with_one_twice, "train-000000.tar is listed 2 times"),
    "no train shard": (without_train, "no train shard|3 patients in train"),
    "no shard": (at("shards", value=[]), "samples in train, but its shards hold 0"),
    "no count of a split": (updated("samples_by_split", by=lambda d: d.pop("test")), "0 samples"),
    "patients": (at("patients_by_split", "test", value=7), "7 patients in test"),
    "views": (at("images_by_split_and_view", "test", value={"PA": 9}), "images by view"),
    "reasons": (at("dropped_by_reason", value={"nothing": 9}), "dropped_by_reason"),
    "mean": (at("pixel_mean", value=0.123), "not those of the training images"),
    "deviation of nothing": (at("pixel_std", value=0.0), "not those of the training images"),
    "no number": (at("pixel_std", value=float("nan")), "pixel_std: .* finite"),
    "infinite": (at("pixel_mean", value=float("-inf")), "pixel_mean"),
    "a text": (at("pixel_mean", value="0.5"), "pixel_mean: .* valid number"),
    "true for a number": (at("seed", value=True), "seed: .* valid integer"),
    "a negative count": (at("shards", 0, "samples", value=-1), "shards.0.samples"),
    "a count beyond machines": (at("shards", 0, "bytes", value=2**70), "shards.0.bytes"),
    "images of no side": (at("longest_side_px", value=0), "longest_side_px"),
    "an unknown split": (at("shards", 0, "split", value="dev"), "shards.0.split"),
    "no checksum": (at("shards", 0, "sha256", value=""), "shards.0.sha256"),
    "a path up": (name_of("../x/train-000000.tar"), "not the name of a file in this folder"),
    "a path from the root": (name_of("/x/train-000000.tar"), "not the name of a file"),
    "a path of Windows": (name_of(r"..\train-000000.tar"), "not the name of a file"),
    "a name with NUL": (name_of("train\0.tar"), "not the name of a file"),
    "no name": (name_of(""), "not the name of a file"),
    "an index up": (at("shards", 0, "index_name", value="../i.json"), "not the name of a file"),
    "another index": (at("shards", 0, "index_name", value=INDEX[:-5]), "its index cannot be"),
    "an unknown key": (at("patients", value=3), "patients: Extra inputs"),
    "another schema": (at("schema_version", value=7), "schema version 7, but this release reads"),
}


@pytest.mark.parametrize("name", MANIFEST)
def test_a_manifest_that_cannot_be_is_named_and_refused(sound_shards: Path, name: str) -> None:
    change, said = MANIFEST[name]
    path = sound_shards / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    assert_said(found_by_verify(sound_shards), said)
    assert_said(said_by_reader(sound_shards), f"refused: .*({said})")


def exchange_images(index: Document) -> None:
    """Right sizes and checksums, wrong pairs of image and report."""
    one, other = (sample["members"] for sample in index["samples"][:2])
    one["image0.jpg"], other["image0.jpg"] = other["image0.jpg"], one["image0.jpg"]


def zero_words(index: Document) -> None:
    for sample in index["samples"]:
        sample["words"] = {name: [0] * len(each) for name, each in sample["words"].items()}


FIRST = ("samples", 0)
IMAGE = (*FIRST, "members", "image0.jpg")
# What verify says, and what the reader says: "" where it reads on, for what it trusts is in order.
INDICES: dict[str, tuple[Callable[[Document], None], str, str]] = {
    "another split": (
        at("split", value="validate"),
        "split 'validate' in the index",
        "refused: .*split 'validate' in the index",
    ),
    "another tar": (at("tar_name", value="train-000001.tar"), "tar_name", "refused: .*tar_name"),
    "other bytes": (at("tar_bytes", value=512), "tar_bytes 512", "refused: .*tar_bytes 512"),
    "another digest": (at("tar_sha256", value="0" * 64), "tar_sha256", "refused: .*tar_sha256"),
    "a sample left out": (updated("samples", by=lambda s: s.pop()), "samples 3", "refused"),
    "another order": (updated("samples", by=lambda s: s.reverse()), "another order", "refused"),
    "no samples": (at("samples", value=[]), "samples 0 in the index", "refused: .*samples 0"),
    "a key twice": (
        lambda index: index["samples"][1].update(key=index["samples"][0]["key"]),
        "this key is there 2 times",
        "refused: .*this key is there 2 times",
    ),
    "a key that is a path": (at(*FIRST, "key", value="../x"), "not the name", "refused"),
    "a member that is a path": (
        updated(*FIRST, "members", by=lambda m: m.update({"../x.jpg": m["json"]})),
        "not the name of a file",
        "refused: .*not the name of a file",
    ),
    "a size too large": (at(*IMAGE, "size", value=2**50), "outside of the tar", "refused"),
    "a size beyond machines": (at(*IMAGE, "size", value=2**64), "size", "refused: .*size"),
    "an offset too large": (at(*IMAGE, "offset", value=10**9), "outside of the tar", "refused"),
    "an offset below zero": (at(*IMAGE, "offset", value=-512), "offset", "refused: .*offset"),
    "an offset in no header": (at(*IMAGE, "offset", value=3), "outside of the tar", "refused"),
    "a checksum beyond 32 bits": (at(*IMAGE, "crc32", value=2**32), "crc32", "refused: .*crc32"),
    "images exchanged": (
        exchange_images,
        r"image0.jpg: \(offset, size\)",
        "quarantined: .*member 'image0.jpg' is not where the index says",
    ),
    "no record": (
        updated(*FIRST, "members", by=lambda m: m.pop("json")),
        "has no record",
        "quarantined: .*member 'json' is not in the index",
    ),
    "another patient": (
        at(*FIRST, "patient_id", value="somebody"),
        "patient 'somebody' in the index",
        "patients in train|patient 'somebody'",
    ),
    "a patient without a name": (at(*FIRST, "patient_id", value=""), "patient_id", "refused"),
    "other views": (at(*FIRST, "views", value=["L"]), "views", "refused: .*images by view"),
    "a view that is none": (at(*FIRST, "views", value=["LL"]), "views", "refused: .*views"),
    # What the index leaves out is never read, so only verify can tell.
    "no words": (zero_words, "words of the index are not those", ""),
    "words of policies": (at(*FIRST, "words", value={"lovt": 5}), "words.lovt.0", "refused"),
    "words of no section": (at(*FIRST, "words", value={}), "no words", "refused: .*no words"),
    "words below zero": (at(*FIRST, "words", value={"findings": [-1]}), "words", "refused"),
    "pixel sums of no pixels": (at("pixels", "total", value=1), "sums over pixels", "refused"),
}


@pytest.mark.parametrize("name", INDICES)
def test_an_index_that_cannot_be_is_named_and_refused(sound_shards: Path, name: str) -> None:
    change, verified, read = INDICES[name]
    index = read_rows(sound_shards / INDEX)
    change(index)
    write_rows(sound_shards / INDEX, index)
    reseal_indexes(sound_shards)
    assert_said(found_by_verify(sound_shards), verified)
    if read:
        assert_said(said_by_reader(sound_shards), read)


BOX = {"image": 0, "x": 1, "y": 1, "width": 3, "height": 3, "category": "c", "phrase": ""}
SENTENCES = ("report", "sentences")
MASK = {"image": 0, "category": "c", "member": "mask_c.png"}
RECORDS: dict[str, tuple[Callable[[Document], None], str]] = {
    "another key": (at("key", value="x"), "key '.*' in the index, 'x' in the record"),
    "another patient": (at("patient_id", value="x"), "patient .* 'x' in the record"),
    "another split": (at("split", value="test"), "split 'train' in the index, 'test'"),
    "a patient that is a number": (at("patient_id", value=5), "patient_id: .* valid string"),
    "sentences as one text": (at(*SENTENCES, value={"findings": "Clear."}), "sentences.findings"),
    "sentences of numbers": (at(*SENTENCES, value={"findings": [1]}), "sentences.findings.0"),
    "no sentences": (at(*SENTENCES, value={}), "words of the index are not those"),
    "sentences as a list": (at(*SENTENCES, value=[]), "report.sentences"),
    "a report that is a list": (at("report", value=[]), "report"),
    "no report": (updated(by=lambda r: r.pop("report")), "report: .*required|report: Missing"),
    "an unknown view": (at("images", 0, "view", value="LL"), "images.0.view"),
    "another view": (at("images", 0, "view", value=None), "views .* in the record"),
    "an image id that is a number": (at("images", 0, "id", value=5), "images.0.id"),
    "an image without height": (at("images", 0, "height", value=0), "images.0.height"),
    "another size": (at("images", 0, "width", value=47), r"47"),
    "a member that is a path": (at("images", 0, "member", value="../x.jpg"), "not the name"),
    "a member that is not there": (at("images", 0, "member", value="image7.jpg"), "image7.jpg"),
    "no images": (at("images", value=[]), "images: none|in the record|a (box|mask) of image 0"),
    "labels that are texts": (at("labels", value={"Edema": "yes"}), "labels.Edema"),
    "labels that are true": (at("labels", value={"Edema": True}), "labels.Edema"),
    "labels that are no number": (at("labels", value={"Edema": float("nan")}), "labels.Edema"),
    "a box of a text": (at("boxes", value=[{**BOX, "x": "a"}]), "boxes.0.x"),
    "a box of no number": (at("boxes", value=[{**BOX, "x": float("inf")}]), "boxes.0.x"),
    "a box of negative width": (at("boxes", value=[{**BOX, "width": -3}]), "boxes.0.width"),
    "a box beside its image": (at("boxes", value=[{**BOX, "x": 1e6}]), "outside of image0.jpg"),
    "a box before its image": (at("boxes", value=[{**BOX, "y": -9}]), "outside of image0.jpg"),
    "a study without a name": (at("study_id", value=""), "study_id: .* at least 1 character"),
    "a box of another image": (at("boxes", value=[{**BOX, "image": 9}]), "a box of image 9"),
    "a mask of another image": (at("masks", value=[{**MASK, "image": 7}]), "a mask of image 7"),
    "a mask from the end": (at("masks", value=[{**MASK, "image": -1}]), "a mask of image -1"),
    "a mask that is the image": (
        at("masks", value=[{**MASK, "member": "image0.jpg"}]),
        "image0.jpg: the member of 2 images and masks",
    ),
}
DOCUMENTS = {
    "deep lists": b"[" * 100_000,
    "null": b"null",
    "a list": b"[]",
    "no UTF-8": b"\xff\xfe{}",
    "nothing": b"",
    "a number of 5,000 digits": b"9" * 5000,
}


@pytest.mark.parametrize("name", [*RECORDS, *DOCUMENTS])
def test_a_record_that_cannot_be_is_named_and_left_to_the_quarantine(
    sound_shards: Path, name: str
) -> None:
    key = read_rows(sound_shards / INDEX)["samples"][0]["key"]

    def changed(member: str, payload: bytes) -> bytes:
        if member != f"{key}.json":
            return payload
        if name in DOCUMENTS:
            return DOCUMENTS[name]
        record = json.loads(payload)
        RECORDS[name][0](record)
        return json.dumps(record).encode()

    rewrite_members(sound_shards, TAR, changed)
    said = RECORDS[name][1] if name in RECORDS else "JSON|object|dictionary"
    assert_said(found_by_verify(sound_shards), said)
    assert_said(said_by_reader(sound_shards), f"quarantined: {TAR}: {key}: .*({said})")
