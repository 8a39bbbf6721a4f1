from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from data_shards.building.settings import ShardsConfig
from data_shards.errors import InputError
from data_shards.phantom import archive as phantom_archive
from data_shards.phantom.archive import draw_if_absent
from data_shards.phantom.layouts import mimic_cxr as mimic_layout
from data_shards.phantom.layouts.drawn import Rows
from data_shards.phantom.settings import PhantomConfig
from data_shards.phantom.study import Study, draw_patient, plan_patients
from data_shards.profiles import load_profile, validate
from data_shards.records.study import Sample
from data_shards.sources.base import Source
from data_shards.sources.mimic_cxr import MimicCxrConfig
from tests.paths import CONFIGS

DICOM_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")


def small_config(archive: Path, **changes: int) -> PhantomConfig:
    counts = {"train_studies": 26, "validate_studies": 5, "test_studies": 9} | changes
    return PhantomConfig(archive=archive, image_size_px=64, seed=counts.pop("seed", 2), **counts)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PhantomConfig:
    config = small_config(tmp_path_factory.mktemp("phantom") / "archive")
    draw_if_absent(config, workers=1)
    return config


def imported(config: PhantomConfig) -> Source:
    """What the profile's importer makes of the archive."""
    values = {
        "phantom": config.model_dump(mode="json"),
        "source": {"name": "mimic_cxr"},
        "output": "unset",
    }
    return validate(ShardsConfig, values, where="test").source.open()


def digests(archive: Path) -> dict[str, str]:
    return {
        str(path.relative_to(archive)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(archive.rglob("*"))
        if path.is_file()
    }


def table(archive: Path, kind: str) -> list[dict[str, str]]:
    with gzip.open(archive / f"mimic-cxr-2.0.0-{kind}.csv.gz", "rt") as file:
        return list(csv.DictReader(file))


def test_the_bytes_do_not_depend_on_the_number_of_workers(
    config: PhantomConfig, tmp_path: Path
) -> None:
    draw_if_absent(small_config(tmp_path / "twice"), workers=2)
    assert digests(tmp_path / "twice") == digests(config.archive)


def test_another_seed_gives_other_studies(config: PhantomConfig, tmp_path: Path) -> None:
    draw_if_absent(small_config(tmp_path / "other", seed=3), workers=1)
    shared = digests(tmp_path / "other").keys() & digests(config.archive).keys()
    assert not any(name.endswith(".jpg") for name in shared)


def test_a_stopped_drawing_goes_on_where_it_was(
    config: PhantomConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = small_config(tmp_path / "stopped")
    drawn: list[int] = []
    dies_at: int | None = 39

    def write_study(config: PhantomConfig, study: Study) -> Rows:
        if study.number == dies_at:
            raise KeyboardInterrupt
        drawn.append(study.number)
        return whole(config, study)

    whole = mimic_layout.write_study
    monkeypatch.setattr(mimic_layout, "write_study", write_study)
    with pytest.raises(KeyboardInterrupt):
        draw_if_absent(stopped, workers=1)
    assert not (stopped.archive / "COMPLETE").exists()
    assert drawn == list(range(39))
    drawn.clear()
    dies_at = None
    draw_if_absent(stopped, workers=1)
    assert 0 < len(drawn) < 39
    assert drawn[-1] == 39
    assert digests(stopped.archive) == digests(config.archive)


def test_a_finished_archive_is_not_drawn_again(
    config: PhantomConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phantom_archive, "draw_archive", None)
    draw_if_absent(config, workers=1)
    assert len(imported(config).list_studies()) == 40


def test_another_drawing_is_another_source_even_with_the_same_tables(
    config: PhantomConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = draw_if_absent(config, workers=1)
    assert draw_if_absent(config, workers=1) == before
    monkeypatch.setattr(phantom_archive, "DRAWING_VERSION", phantom_archive.DRAWING_VERSION + 1)
    # As if it had been drawn anew and only the pixels differed.
    monkeypatch.setattr(phantom_archive, "is_drawn", lambda _: True)
    assert draw_if_absent(config, workers=1) != before


def test_an_archive_of_other_settings_is_refused_by_name(config: PhantomConfig) -> None:
    other = config.model_copy(update={"noise": 2.0})
    with pytest.raises(InputError, match=r"other settings \(noise=1\.0\): set phantom\.archive"):
        draw_if_absent(other, workers=1)


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.tex.*not a phantom"):
        draw_if_absent(small_config(tmp_path), workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_tables_have_the_official_columns(config: PhantomConfig) -> None:
    headers = {
        kind: gzip.decompress(path.read_bytes()).decode().partition("\n")[0]
        for kind in ("metadata", "split", "chexpert")
        for path in config.archive.glob(f"*-{kind}.csv.gz")
    }
    assert headers == {
        "metadata": "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,"
        "Rows,Columns,StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,"
        "ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning",
        "split": "dicom_id,study_id,subject_id,split",
        "chexpert": "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,"
        "Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,No Finding,"
        "Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices",
    }
    boxes = (config.archive / mimic_layout.MS_CXR_NAME).read_text().splitlines()
    assert boxes[0] == (
        "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height,split"
    )


def test_ids_and_paths_are_the_official_ones(config: PhantomConfig) -> None:
    rows = table(config.archive, "metadata")
    for row in rows:
        assert re.fullmatch(r"1\d{7}", row["subject_id"])
        assert re.fullmatch(r"5\d{7}", row["study_id"])
        assert DICOM_ID.fullmatch(row["dicom_id"])
        subject = f"p{row['subject_id']}"
        folder = f"files/{subject[:3]}/{subject}/s{row['study_id']}"
        with Image.open(config.archive / folder / f"{row['dicom_id']}.jpg") as image:
            assert image.mode == "L"
            assert image.size == (int(row["Columns"]), int(row["Rows"]))
    assert len({row["dicom_id"] for row in rows}) == len(rows)
    assert {row["ViewPosition"] for row in rows} == {"PA", "AP", "LATERAL"}
    with zipfile.ZipFile(config.archive / mimic_layout.REPORTS_NAME) as reports:
        assert len(reports.namelist()) == 40
        pattern = r"files/p1\d/p1\d{7}/s5\d{7}\.txt"
        assert all(re.fullmatch(pattern, name) for name in reports.namelist())


def test_ids_stay_unique_over_many_patients() -> None:
    ids = {mimic_layout.subject_id(1, patient) for patient in range(20_000)}
    assert len(ids) == 20_000


def test_splits_have_exactly_the_studies_asked_for_and_no_patient_twice(
    config: PhantomConfig,
) -> None:
    refs = imported(config).list_studies()
    split_of_patient = {(ref.patient_id, ref.split) for ref in refs}
    assert len(split_of_patient) == len({ref.patient_id for ref in refs})
    counts = {split: sum(ref.split == split for ref in refs) for split in ("validate", "test")}
    assert (len(refs), counts) == (40, {"validate": 5, "test": 9})


def test_the_importer_reads_every_study_with_its_boxes_and_masks(config: PhantomConfig) -> None:
    source = imported(config)
    categories = set()
    for ref in source.list_studies():
        sample = source.load_study(ref)
        assert isinstance(sample, Sample)
        assert any(image.view in ("PA", "AP") for image in sample.images)
        assert {box.category for box in sample.boxes} == {mask.category for mask in sample.masks}
        for mask in sample.masks:
            assert sample.images[mask.image].view != "L"
            pixels = np.asarray(Image.open(str(mask.path)))
            assert set(np.unique(pixels)) == {0, 255}
            with Image.open(str(sample.images[mask.image].path)) as image:
                assert pixels.shape == image.size[::-1]
            categories.add(mask.category)
    assert len(categories) >= 5


def test_a_study_does_not_depend_on_how_many_others_there_are() -> None:
    few = plan_patients(0, {"train": 10, "validate": 0, "test": 0})
    many = plan_patients(0, {"train": 50, "validate": 0, "test": 0})
    for plan, same in zip(few[:-1], many, strict=False):
        assert draw_patient(0, plan) == draw_patient(0, same)


@pytest.mark.parametrize("name", ["phantom", "phantom_quickstart"])
def test_the_profiles_describe_a_phantom(name: str) -> None:
    folder = CONFIGS / "shards"
    profile = load_profile(ShardsConfig, folder / f"{name}.yaml")
    assert profile.phantom is not None
    assert profile.phantom.test_studies >= 200
    assert profile.longest_side_px == profile.phantom.image_size_px
    assert (profile.source.name, profile.source_name) == ("mimic_cxr", "phantom")


def test_the_importer_is_told_where_the_archive_lies_unless_the_profile_says() -> None:
    overrides = ("phantom.archive=drawn", "source.masks=null", "source.exceptions=drop")
    source = load_profile(ShardsConfig, CONFIGS / "shards" / "phantom.yaml", overrides).source
    assert isinstance(source, MimicCxrConfig)
    assert source.root == Path("drawn")
    assert source.ms_cxr == Path("drawn") / mimic_layout.MS_CXR_NAME
    assert (source.masks, source.exceptions) == (None, "drop")


@pytest.mark.parametrize("extends", [False, True])
def test_profiles_of_when_the_phantom_was_a_source_are_read(tmp_path: Path, extends: bool) -> None:
    path = tmp_path / "shards.yaml"
    source = {"archive": "drawn", "train_studies": 7}
    values: dict[str, object] = {"source": source, "output": "shards"}
    if extends:
        values["extends"] = str(CONFIGS / "shards" / "phantom.yaml")
    else:
        source["name"] = "phantom"
    path.write_text(yaml.safe_dump(values))
    now = (f"phantom.{key}={value}" for key, value in (("archive", "drawn"), ("train_studies", 7)))
    expected = load_profile(
        ShardsConfig, CONFIGS / "shards" / "phantom.yaml", (*now, "phantom.image_size_px=256")
    )
    found = load_profile(ShardsConfig, path)
    assert (found.phantom, found.source) == (expected.phantom, expected.source)
    with pytest.raises(InputError, match=r"phantom\.train_studies: Input should be greater"):
        load_profile(ShardsConfig, path, ("source.train_studies=0",))


def test_an_archive_that_an_earlier_release_drew_is_not_drawn_again(
    config: PhantomConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = config.model_copy(update={"archive": tmp_path / "older"})
    shutil.copytree(config.archive, older.archive)
    settings = json.loads((older.archive / "phantom.json").read_text())
    del settings["layout"]
    (older.archive / "phantom.json").write_text(json.dumps(settings))
    monkeypatch.setattr(phantom_archive, "draw_archive", None)
    draw_if_absent(older, workers=1)
