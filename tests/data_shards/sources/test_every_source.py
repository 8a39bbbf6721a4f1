"""What holds for every source of the catalogue, on a tiny archive in its own layout.

A new source is tested by adding `archives/<name>.py` beside this file, `<name>` being the name that
profiles choose it by. It has two things:

    def write(root: Path, images: Sequence[TinyImage]) -> dict[str, Any]

writes an archive of these images and their reports below the folder `root`, as the data set is
published, and returns what a profile says in `source`, the name included; and

    EXEMPT: Mapping[str, str]

names the cases of `CONTRADICTIONS`, `LEFT_OUT` and `MISSING` that cannot arise in this layout, each
with the reason ("no split is published").

Published sets of labels, boxes or masks, which hold no free report, have the phantom write their
layout instead: `tests/data_shards/phantom/test_every_layout.py`.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest

from data_shards.building.settings import ShardsConfig
from data_shards.checking.verify import verify_shards
from data_shards.errors import InputError
from data_shards.phantom.settings import Layout
from data_shards.profiles import validate
from data_shards.records.study import Sample
from data_shards.sources.base import Source
from data_shards.sources.catalog import AnySourceConfig
from tests.data_shards.building.whole import build_shards
from tests.data_shards.sources.tiny_archive import TinyImage

LATERAL = TinyImage("image-b", "10000001", "50000001", "L")
FRONTAL = TinyImage("image-a", "10000001", "50000001", "AP")
LATER = TinyImage("image-c", "10000001", "50000002")
VALIDATE = TinyImage("image-d", "10000002", "50000003", split="validate")
TEST = TinyImage("image-e", "10000003", "50000004", split="test")
IMAGES = (LATERAL, FRONTAL, LATER, VALIDATE, TEST)

# What no archive may hold: the images of one that does, and what the refusal names.
CONTRADICTIONS: dict[str, tuple[Sequence[TinyImage], str]] = {
    "an image listed twice": ((*IMAGES, LATER), "image-c"),
    "two reports of one study": ((*IMAGES[1:], replace(LATERAL, report="Another.")), "50000001"),
    "a study of two patients": ((*IMAGES, replace(TEST, id="x", study="50000001")), "50000001"),
    "a patient in two splits": (
        (*IMAGES, TinyImage("x", "10000001", "50000009", split="test")),
        "10000001 is in two splits",
    ),
    "an unknown split": ((*IMAGES, TinyImage("x", "10000009", "50000009", split="dev")), "'dev'"),
    "an image without a patient": ((*IMAGES, replace(TEST, id="x", patient="")), "empty"),
}
# What the profile decides on: the images, the setting, and what is counted where it says "drop".
LEFT_OUT: dict[str, tuple[Sequence[TinyImage], str, str]] = {
    "an unknown view": ((*IMAGES, replace(LATER, id="x", view="OBLIQUE")), "unknown_views", "view"),
    "an empty report": (
        (LATERAL, FRONTAL, replace(LATER, report=" "), VALIDATE, TEST),
        "bad_reports",
        "report",
    ),
}
# Where images are files of their own.
MISSING = {"a missing image": "image-b"}


def catalogued() -> dict[str, ModuleType]:
    """The tiny archives of all sources, by name."""
    union, _ = get_args(AnySourceConfig)
    names = [config.model_fields["name"].default for config in get_args(union) or (union,)]
    return {
        name: import_module(f"tests.data_shards.sources.archives.{name}")
        for name in names
        if name == "mimic_cxr" or name not in get_args(Layout)
    }


ARCHIVES = catalogued()
every_source = pytest.mark.parametrize("name", ARCHIVES)


def arising(cases: dict[str, Any]) -> list[tuple[str, str]]:
    """(Source, case) for all cases that can arise in the source's layout."""
    every = product(ARCHIVES, cases)
    return [(name, case) for name, case in every if case not in ARCHIVES[name].EXEMPT]


def profile_of(
    name: str, root: Path, images: Sequence[TinyImage] = IMAGES, **changes: Any
) -> ShardsConfig:
    """A profile over a new archive; sets without splits go to training whole."""
    archive = root / "archive"
    archive.mkdir(parents=True)
    values = {
        "source": ARCHIVES[name].write(archive, images) | changes.pop("source", {}),
        "output": root / "shards",
        "longest_side_px": 32,
        "validate_fraction": 0,
        "test_fraction": 0,
        "workers": 1,
    }
    return validate(ShardsConfig, values | changes, where="test")


def read_all(source: Source) -> list[Sample | str]:
    """All that the builder asks of a source."""
    refs = source.list_studies()
    source.fingerprint()
    return [source.load_study(ref) for ref in refs]


@every_source
def test_studies_are_listed_and_loaded_in_order_with_their_images_by_id(
    name: str, tmp_path: Path
) -> None:
    source = profile_of(name, tmp_path).source.open()
    refs = source.list_studies()
    assert list(refs) == sorted(refs)
    samples = read_all(source)
    for ref, sample in zip(refs, samples, strict=True):
        assert isinstance(sample, Sample)
        assert (sample.patient_id, sample.study_id) == (ref.patient_id, ref.study_id)
        assert sample.split == ref.split
        assert [image.id for image in sample.images] == sorted(i.id for i in sample.images)
        assert all(image.path.read_bytes() for image in sample.images)
        assert any(sample.report.sentences.values())
    views = [[image.view for image in s.images] for s in samples if isinstance(s, Sample)]
    assert views == [["AP", "L"], ["PA"], ["PA"], ["PA"]]
    assert len({ref.patient_id for ref in refs}) == 3
    assert source.list_dropped_images() == ()


@every_source
def test_the_shards_of_an_archive_are_sound_and_say_whose_they_are(
    name: str, tmp_path: Path
) -> None:
    config = profile_of(name, tmp_path)
    manifest = build_shards(config)
    assert verify_shards(config.output, workers=1).problems == ()
    assert sum(manifest.samples_by_split.values()) == 4
    assert manifest.dropped == ()
    assert (manifest.source, manifest.licence) == (name, config.source.licence)
    assert manifest.licence


@every_source
def test_a_pickle_holds_no_tables_and_reads_the_same(name: str, tmp_path: Path) -> None:
    source = profile_of(name, tmp_path).source.open()
    samples = read_all(source)
    pickled = pickle.dumps(source)
    assert b"50000001" not in pickled
    assert read_all(pickle.loads(pickled)) == samples


@every_source
def test_the_fingerprint_is_of_what_reports_say_wherever_they_lie(
    name: str, tmp_path: Path
) -> None:
    fingerprints = []
    other = (*IMAGES[:-1], replace(TEST, report=TEST.report.replace("Normal", "Absent")))
    for number, images in enumerate((IMAGES, IMAGES, other)):
        source = profile_of(name, tmp_path / str(number), images).source.open()
        source.list_studies()
        fingerprints.append(source.fingerprint())
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


@pytest.mark.parametrize(("name", "case"), arising(CONTRADICTIONS))
def test_contradictions_are_refused_by_name(name: str, case: str, tmp_path: Path) -> None:
    images, named = CONTRADICTIONS[case]
    config = profile_of(name, tmp_path, images)
    with pytest.raises(InputError, match=named) as error:
        build_shards(config)
    assert str(tmp_path / "archive") in str(error.value)
    assert not config.output.exists()


@pytest.mark.parametrize(("name", "case"), arising(LEFT_OUT))
def test_what_the_profile_decides_on_stops_the_build_or_is_counted(
    name: str, case: str, tmp_path: Path
) -> None:
    images, setting, reason = LEFT_OUT[case]
    stops = profile_of(name, tmp_path / "stop", images, source={setting: "stop"})
    with pytest.raises(InputError, match=rf"{reason}.*source\.{setting}=drop"):
        build_shards(stops)
    assert not list(stops.output.glob("*.tar"))
    config = profile_of(name, tmp_path / "drop", images, source={setting: "drop"})
    manifest = build_shards(config)
    [(counted, count)] = manifest.dropped_by_reason.items()
    assert reason in counted
    assert count == 1
    kept = sum(sum(views.values()) for views in manifest.images_by_split_and_view.values())
    assert kept == len(images) - 1


@pytest.mark.parametrize(("name", "case"), arising(MISSING))
def test_a_missing_image_stops_the_build_by_name_or_is_counted(
    name: str, case: str, tmp_path: Path
) -> None:
    config = profile_of(name, tmp_path)
    (missing,) = (tmp_path / "archive").rglob(f"{MISSING[case]}.*")
    missing.unlink()
    with pytest.raises(InputError, match="missing image") as error:
        build_shards(config)
    assert str(missing) in str(error.value)
    manifest = build_shards(config.model_copy(update={"bad_images": "drop"}))
    assert manifest.dropped_by_reason == {"missing image": 1}
    assert sum(manifest.samples_by_split.values()) == 4


@every_source
def test_an_archive_without_its_tables_and_reports_is_refused(name: str, tmp_path: Path) -> None:
    config = profile_of(name, tmp_path)
    for path in (tmp_path / "archive").rglob("*"):
        if path.is_file() and not path.stem.startswith("image-"):
            path.unlink()
    with pytest.raises(InputError) as error:
        build_shards(config)
    assert str(tmp_path / "archive") in str(error.value)


def test_a_source_is_exempt_from_known_cases_alone_and_says_why() -> None:
    for archive in ARCHIVES.values():
        assert archive.EXEMPT.keys() <= CONTRADICTIONS.keys() | LEFT_OUT.keys() | MISSING.keys()
        assert all(archive.EXEMPT.values())
