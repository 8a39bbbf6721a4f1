"""The phantom in each layout, read by its importer through the profile of the real set."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import get_args

import pytest

from data_shards.building.build import build_part
from data_shards.building.settings import ShardsConfig
from data_shards.checking.verify import verify_shards
from data_shards.phantom.archive import draw_if_absent
from data_shards.phantom.layouts.catalog import LICENCE, layout_of
from data_shards.phantom.layouts.nih_boxes import FINDINGS
from data_shards.phantom.layouts.rsna import POSITIVE
from data_shards.phantom.settings import Layout, PhantomConfig
from data_shards.phantom.study import Study, draw_patient, plan_patients
from data_shards.profiles import load_profile
from data_shards.records.manifest import Manifest
from data_shards.records.study import Sample, StudyRecord
from data_shards.sources.catalog import AnySourceConfig
from tests.paths import CONFIGS

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
WITH_DICOM = ("rsna", "siim_acr")
# Of the real sets the sizes of validation and test are those of a paper.
SIZES = ("split_sizes.validate_studies=3", "split_sizes.test_studies=4")
SIZED = {
    "rsna": SIZES,
    "siim_acr": SIZES,
    "covid_rural": ("split_sizes.validate_studies=2", "split_sizes.test_studies=2"),
    "nih_boxes": (*SIZES, "source.no_finding_images=2"),
    "object_cxr": ("split_sizes.validate_studies=4",),
    "chexpert": ("validate_fraction=0.4",),
    "openi": ("validate_fraction=0.2", "test_fraction=0.2"),
}

Built = tuple[PhantomConfig, ShardsConfig, Manifest, list[StudyRecord]]


@pytest.fixture(scope="module")
def build_layout(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Layout], Built]:
    root = tmp_path_factory.mktemp("layouts")

    @cache
    def build(name: Layout) -> Built:
        if name in WITH_DICOM:
            pytest.importorskip("pydicom", reason="pip install 'radalign[dicom]'")
        drawn = PhantomConfig(
            archive=root / name / "archive",
            layout=name,
            train_studies=20,
            validate_studies=3,
            test_studies=5,
            image_size_px=64,
        )
        draw_if_absent(drawn, workers=1)
        values = layout_of(name).importer_settings(drawn)
        changes = [f"source.{key}={value}" for key, value in values.items()]
        config = load_profile(
            ShardsConfig,
            CONFIGS / "shards" / f"{name}.yaml",
            [*changes, *SIZED.get(name, ()), f"output={root / name / 'shards'}", "workers=1"],
        )
        manifest = build_part(config).manifest
        assert manifest is not None
        return drawn, config, manifest, list(records(config.output))

    return build


def records(folder: Path) -> Iterator[StudyRecord]:
    """Read as anybody would."""
    for tar in sorted(folder.glob("*.tar")):
        with tarfile.open(tar) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if member.name.endswith(".json") and file is not None:
                    yield StudyRecord.from_json(file.read())


def drawn_studies(config: PhantomConfig) -> list[Study]:
    """The world's own plan: what the archive ought to hold."""
    plans = plan_patients(config.seed, config.studies_by_split)
    return list(chain.from_iterable(draw_patient(config.seed, plan) for plan in plans))


def showing(studies: list[Study], categories: tuple[str, ...]) -> int:
    return sum(any(f.category in categories for f in study.findings) for study in studies)


def test_every_source_without_a_tiny_archive_has_a_layout() -> None:
    union, _ = get_args(AnySourceConfig)
    names = {config.model_fields["name"].default for config in get_args(union)}
    tiny = Path(__file__).parents[1] / "sources" / "archives"
    assert names - {path.stem for path in tiny.glob("*.py")} <= set(LAYOUTS) <= names


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_profile_builds_from_the_layout_and_verify_is_clean(
    name: Layout, build_layout: Callable[[Layout], Built]
) -> None:
    _, config, manifest, found = build_layout(name)
    checked = verify_shards(config.output, workers=1)
    assert checked.problems == ()
    assert sum(manifest.samples_by_split.values()) == len(found) == checked.samples
    assert all(record.source == name for record in found)
    in_split: dict[str, set[str]] = {}
    for record in found:
        in_split.setdefault(record.patient_id, set()).add(record.split)
    assert all(len(splits) == 1 for splits in in_split.values())


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_profile_of_a_real_set_reads_the_phantom_that_it_is_given(
    name: Layout, tmp_path: Path
) -> None:
    archive = tmp_path / "drawn"
    profile = CONFIGS / "shards" / f"{name}.yaml"
    changes = [f"phantom.layout={name}", f"phantom.archive={archive}"]
    source = load_profile(ShardsConfig, profile, changes).source
    settings = layout_of(name).importer_settings(PhantomConfig(archive=archive, layout=name))
    assert {key: getattr(source, key) for key in settings} == settings
    assert source.licence == LICENCE
    # What lies in the archive may be named.
    own = next(key for key, value in settings.items() if isinstance(value, Path))
    source = load_profile(ShardsConfig, profile, [*changes, f"source.{own}={archive}/mine"]).source
    assert getattr(source, own) == archive / "mine"


@pytest.mark.parametrize("name", ["openi", "rsna"])
def test_the_bytes_of_a_layout_are_the_same_again(
    name: Layout, build_layout: Callable[[Layout], Built], tmp_path: Path
) -> None:
    drawn, *_ = build_layout(name)
    again = drawn.model_copy(update={"archive": tmp_path / "again"})
    draw_if_absent(again, workers=2)
    assert digests(again.archive) == digests(drawn.archive)


def digests(archive: Path) -> dict[str, str]:
    return {
        str(path.relative_to(archive)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in archive.rglob("*")
        if path.is_file()
    }


def test_rsna_has_the_boxes_labels_and_sizes_of_its_tables(
    build_layout: Callable[[Layout], Built],
) -> None:
    drawn, _, manifest, found = build_layout("rsna")
    studies = drawn_studies(drawn)
    assert manifest.samples_by_split == {"train": 21, "validate": 3, "test": 4}
    positive = [record for record in found if record.labels["Pneumonia"] == 1]
    assert len(positive) == showing(studies, POSITIVE)
    assert [bool(record.boxes) for record in found] == [record in positive for record in found]
    assert sum(record.labels["Normal"] == 1 for record in found) == sum(
        not study.findings for study in studies
    )
    assert len({record.patient_id for record in found}) == len({s.patient for s in studies})


@pytest.mark.parametrize("name", WITH_DICOM)
def test_views_are_those_of_the_headers(
    name: Layout, build_layout: Callable[[Layout], Built]
) -> None:
    drawn, _, _, found = build_layout(name)
    views = Counter(image.view for record in found for image in record.images)
    assert views == Counter(study.projection for study in drawn_studies(drawn))
    assert len(views) == 2


def test_siim_has_a_mask_for_every_positive_and_no_other(
    build_layout: Callable[[Layout], Built],
) -> None:
    drawn, _, manifest, found = build_layout("siim_acr")
    assert manifest.samples_by_split == {"train": 21, "validate": 3, "test": 4}
    positive = [record for record in found if record.labels["Pneumothorax"] == 1]
    assert len(positive) == showing(drawn_studies(drawn), ("Pneumothorax",))
    masked = [record for record in found if record.masks]
    assert masked == positive
    assert {mask.member for record in masked for mask in record.masks} == {"mask_Pneumothorax.png"}


def test_nih_has_boxes_of_its_own_words_and_images_without_a_finding(
    build_layout: Callable[[Layout], Built],
) -> None:
    drawn, _, _, found = build_layout("nih_boxes")
    boxed = [record for record in found if record.boxes]
    assert len(boxed) == showing(drawn_studies(drawn), tuple(FINDINGS))
    assert {box.category for record in boxed for box in record.boxes} <= set(FINDINGS.values())
    free = [record for record in found if not record.boxes]
    assert len(free) == 2
    assert all(record.labels["No Finding"] == 1 for record in free)
    assert {image.view for record in found for image in record.images} == {"PA", "AP"}


def test_object_cxr_keeps_the_organisers_test_images(
    build_layout: Callable[[Layout], Built],
) -> None:
    drawn, _, manifest, found = build_layout("object_cxr")
    assert manifest.samples_by_split == {"train": 19, "validate": 4, "test": 5}
    for record in found:
        assert bool(record.boxes) == bool(record.masks) == bool(record.labels["Foreign object"])
    objects = [
        line.partition(",")[2].strip('"')
        for part in ("train", "dev")
        for line in (drawn.archive / f"{part}.csv").read_text().splitlines()[1:]
    ]
    listed = sum(len(items.split(";")) for items in objects if items)
    assert sum(len(record.boxes) for record in found) == listed > 0


def test_chexpert_has_all_views_and_labels_as_they_are(
    build_layout: Callable[[Layout], Built],
) -> None:
    drawn, _, manifest, found = build_layout("chexpert")
    studies = drawn_studies(drawn)
    assert manifest.samples_by_split["test"] == 5
    assert sum(manifest.samples_by_split.values()) == 28
    views = Counter(image.view for record in found for image in record.images)
    assert views["L"] == sum(study.has_lateral for study in studies)
    assert views["PA"] == sum(study.projection == "PA" for study in studies)
    assert all(len(record.labels) == 14 for record in found)
    values = {value for record in found for value in record.labels.values()}
    assert values == {1.0, 0.0, -1.0, None}


def test_covid_rural_leaves_out_what_has_no_mask(build_layout: Callable[[Layout], Built]) -> None:
    drawn, _, manifest, found = build_layout("covid_rural")
    opaque = showing(drawn_studies(drawn), ("Consolidation", "Edema", "Lung Opacity", "Pneumonia"))
    assert len(found) == opaque
    assert manifest.dropped_by_reason == {"no mask": 28 - opaque}
    assert all(len(record.masks) == 1 for record in found)


def test_ms_cxr_has_a_phrase_for_every_box(build_layout: Callable[[Layout], Built]) -> None:
    drawn, _, manifest, found = build_layout("ms_cxr")
    with_findings = [study for study in drawn_studies(drawn) if study.findings]
    assert len(found) == len(with_findings)
    assert manifest.samples_by_split == {
        split: sum(study.split == split for study in with_findings)
        for split in ("train", "validate", "test")
    }
    for record in found:
        assert record.boxes
        assert all(box.phrase in record.report.sections["findings"] for box in record.boxes)


def test_openi_and_its_repack_are_one_set(build_layout: Callable[[Layout], Built]) -> None:
    drawn, config, manifest, found = build_layout("openi")
    assert manifest.dropped_by_reason["a report without an image"] == 4
    assert len(found) == 24
    repack = config.source.model_copy(update={"reports": drawn.archive / "indiana_reports.csv"})
    of_xml, of_table = config.source.open(), repack.open()
    refs = of_xml.list_studies()
    assert of_table.list_studies() == refs
    for ref in refs:
        one, other = of_xml.load_study(ref), of_table.load_study(ref)
        assert isinstance(one, Sample)
        assert isinstance(other, Sample)
        assert (one.report, one.labels) == (other.report, other.labels)
        assert [(i.id, i.view) for i in one.images] == [(i.id, i.view) for i in other.images]
    assert json.loads((drawn.archive / "phantom.json").read_text())["layout"] == "openi"
