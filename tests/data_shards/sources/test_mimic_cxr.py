import gzip
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.profiles import validate
from data_shards.records.manifest import DroppedSample
from data_shards.records.study import Box, Sample
from data_shards.sources.base import StudyRef
from data_shards.sources.mimic_cxr import MimicCxrConfig, MimicCxrSource
from data_shards.sources.mimic_cxr_files import EXCEPTIONS, WITHOUT_FINDINGS
from tests.data_shards.sources.archives.mimic_cxr import (
    report_member,
    write_reports,
    write_tables,
)
from tests.data_shards.sources.tiny_archive import REPORT
from tests.data_shards.sources.tiny_archive import TinyImage as Line

LINES = (
    Line("image-b", "10000001", "50000001", "LATERAL"),
    Line("image-a", "10000001", "50000001", "AP"),
    Line("image-c", "10000001", "50000001", "AP AXIAL"),
    Line("image-d", "10000001", "50000002", "LL"),
    Line("image-e", "10000002", "50000003", "PA", "test"),
    Line("image-f", "10000003", "50000004", "", "validate"),
)


def _archive(
    root: Path, lines: tuple[Line, ...] = LINES, *, release: str = "2.0.0", zipped: bool = True
) -> Path:
    """An archive in the published layout, with a report for every study but no image."""
    root.mkdir()
    write_tables(root, lines, release=release)
    write_reports(root, lines, zipped=zipped)
    return root


def _source(root: Path, **values: object) -> MimicCxrSource:
    return MimicCxrSource(validate(MimicCxrConfig, {"root": root, **values}, where="profile"))


def _load(source: MimicCxrSource, study_id: str) -> Sample | str:
    (ref,) = [ref for ref in source.list_studies() if ref.study_id == study_id]
    return source.load_study(ref)


def _sample(source: MimicCxrSource, study_id: str) -> Sample:
    loaded = _load(source, study_id)
    assert isinstance(loaded, Sample)
    return loaded


def _reason(source: MimicCxrSource, study_id: str) -> str:
    loaded = _load(source, study_id)
    assert isinstance(loaded, str)
    return loaded


def test_studies_are_listed_by_patient_with_the_official_split(tmp_path: Path) -> None:
    assert _source(_archive(tmp_path / "jpg")).list_studies() == [
        StudyRef("10000001", "50000001", "train"),
        StudyRef("10000001", "50000002", "train"),
        StudyRef("10000002", "50000003", "test"),
        StudyRef("10000003", "50000004", "validate"),
    ]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("release", ["2.0.0", "2.1.0"])
def test_a_study_holds_its_known_images_by_id_with_report_and_labels(
    tmp_path: Path, release: str, zipped: bool
) -> None:
    root = _archive(tmp_path / "jpg", release=release, zipped=zipped)
    sample = _sample(_source(root), "50000001")
    assert [(image.id, image.view) for image in sample.images] == [
        ("image-a", "AP"),
        ("image-b", "L"),
    ]
    assert sample.images[0].path == root / "files/p10/p10000001/s50000001/image-a.jpg"
    assert sample.report.raw == REPORT
    assert sample.report.sentences["findings"] == ("Lungs are clear.",)
    assert sample.labels == {"Atelectasis": 1.0, "Edema": -1.0, "Pneumonia": None}


def test_labels_join_on_patient_and_study(tmp_path: Path) -> None:
    assert _sample(_source(_archive(tmp_path / "jpg")), "50000003").labels == {}


def test_images_of_unknown_views_are_dropped_by_name_or_stop(tmp_path: Path) -> None:
    root = _archive(tmp_path / "jpg")
    assert _source(root).list_dropped_images() == (
        DroppedSample(key="image-c", reason="unknown view"),
        DroppedSample(key="image-f", reason="unknown view"),
    )
    with pytest.raises(InputError, match=r"image-c: unknown view 'AP AXIAL'.*unknown_views=drop"):
        _source(root, unknown_views="stop").list_studies()


def test_studies_without_a_frontal_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    root = _archive(tmp_path / "jpg")
    assert _reason(_source(root), "50000002") == "no frontal image"
    assert _reason(_source(root), "50000004") == "no image of a wanted view"
    assert len(_sample(_source(root, require_frontal=False), "50000002").images) == 1
    only_ap = _source(root, views=["AP"])
    assert [image.id for image in _sample(only_ap, "50000001").images] == ["image-a"]
    assert _reason(only_ap, "50000003") == "no image of a wanted view"


def test_the_fingerprint_changes_with_every_table_and_every_report(tmp_path: Path) -> None:
    root = _archive(tmp_path / "jpg")
    boxes = tmp_path / "ms_cxr.csv"
    boxes.write_text("dicom_id,category_name,label_text,x,y,w,h\n")
    source = _source(root, ms_cxr=boxes)
    seen = [source.fingerprint()]
    assert _source(_archive(tmp_path / "copy"), ms_cxr=boxes).fingerprint() == seen[0]
    for kind in ("metadata", "split", "chexpert"):
        with gzip.open(root / f"mimic-cxr-2.0.0-{kind}.csv.gz", "at") as file:
            file.write("\n")
        seen.append(source.fingerprint())
    boxes.write_text(boxes.read_text() + "image-e,Edema,Edema.,1,1,2,2\n")
    seen.append(source.fingerprint())
    # One word of the same length: the sizes in the zip file stay.
    absent = REPORT.replace("Normal", "Absent")
    write_reports(root, [replace(line, report=absent) for line in LINES])
    seen.append(_source(root, ms_cxr=boxes).fingerprint())
    assert len(set(seen)) == len(seen)


def test_exceptions_are_the_54_published() -> None:
    by_section = sum(bool(row["section"]) for row in EXCEPTIONS.values())
    by_span = sum(bool(row["first"] and row["end"]) for row in EXCEPTIONS.values())
    assert (by_section, by_span, len(WITHOUT_FINDINGS)) == (23, 23, 8)
    assert len(EXCEPTIONS) == 54


def test_exceptional_reports_are_dropped_parsed_by_hand_or_as_any_other(tmp_path: Path) -> None:
    by_section, by_span, without = "50743547", "51410602", "58235663"
    lines = tuple(
        Line(f"image-{study}", "10000001", study) for study in (by_section, by_span, without)
    )
    root = _archive(tmp_path / "jpg", lines)
    text = " FINAL REPORT\n EXAMINATION: The lungs are really clear.\n" + " And so on." * 30
    write_reports(root, [replace(line, report=text) for line in lines])
    for line in lines:
        assert "54 reports" in _reason(_source(root), line.study)
    by_hand = _source(root, exceptions="sections")
    assert _sample(by_hand, by_section).report.sections["impression"].startswith("The lungs are")
    assert _sample(by_hand, by_span).report.sections["impression"] == text[47:320].strip()
    assert _reason(by_hand, without) == "nothing about the images in the report"
    kept = _source(root, exceptions="keep")
    assert "impression" not in _sample(kept, by_section).report.sections
    assert _sample(kept, without).report.raw == text


def _write_ms_cxr(root: Path) -> Path:
    path = root / "ms_cxr.csv"
    path.write_text(
        "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height\n"
        "image-b,Edema,mild edema,-,1,2,3,4,9,9\nimage-e,Edema,edema,-,1,2,3,4,9,9\n"
    )
    return path


def test_boxes_of_ms_cxr_name_their_image_and_stay_in_original_pixels(tmp_path: Path) -> None:
    root = _archive(tmp_path / "jpg")
    source = _source(root, ms_cxr=_write_ms_cxr(root))
    boxes = (Box(1, 1.0, 2.0, 3.0, 4.0, "Edema", "mild edema"),)
    assert _sample(source, "50000001").boxes == boxes
    told = source.side_reports()["ms_cxr_overlap.json"]
    assert '"images_by_split": {\n    "train": 1,\n    "validate": 0,\n    "test": 1' in told


def test_images_or_patients_of_ms_cxr_can_be_held_out(tmp_path: Path) -> None:
    root = _archive(tmp_path / "jpg")
    annotations = _write_ms_cxr(root)
    images = _source(root, ms_cxr=annotations, exclude_ms_cxr="images")
    assert [image.id for image in _sample(images, "50000001").images] == ["image-a"]
    assert DroppedSample(key="image-b", reason="image of MS-CXR") in images.list_dropped_images()
    patients = _source(root, ms_cxr=annotations, exclude_ms_cxr="patients", require_frontal=False)
    assert _reason(patients, "50000001") == "patient of MS-CXR"
    assert _reason(patients, "50000002") == "patient of MS-CXR"


def test_images_of_ms_cxr_that_the_archive_has_not_are_told(tmp_path: Path) -> None:
    root = _archive(tmp_path / "jpg")
    path = _write_ms_cxr(root)
    path.write_text(path.read_text().replace("image-b,", "image-x,"))
    assert "1 of 2 images of MS-CXR are not in" in _source(root, ms_cxr=path).warnings()[0]
    path.write_text(path.read_text().replace("image-e,", "image-y,"))
    with pytest.raises(InputError, match=r"none of its 2 images \(image-x ...\) is in .*: fetch"):
        _source(root, ms_cxr=path).list_studies()


def test_masks_are_found_by_image_and_category(tmp_path: Path) -> None:
    root = _archive(tmp_path / "jpg")
    (root / "masks").mkdir()
    mask = root / "masks" / "image-b__pleural_effusion.png"
    mask.touch()
    (found,) = _sample(_source(root, masks=root / "masks"), "50000001").masks
    assert (found.image, found.category, found.path) == (1, "pleural_effusion", mask)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (None, "no report in the archive"),
        (b"\xff\xfe lungs", "not UTF-8"),
        (b" \n", "the report is empty"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_bad_reports_stop_or_are_dropped(
    tmp_path: Path, payload: bytes | None, message: str, zipped: bool
) -> None:
    root = _archive(tmp_path / "jpg", LINES[4:5], zipped=zipped)
    member = report_member(LINES[4])
    if zipped:
        with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w") as archive:
            if payload is not None:
                archive.writestr(member, payload)
    else:
        path = root / "mimic-cxr-reports" / member
        path.unlink()
        if payload is not None:
            path.write_bytes(payload)
    with pytest.raises(InputError, match=rf"s50000003\.txt: .*{message}.*bad_reports=drop"):
        _load(_source(root), "50000003")
    assert message in _reason(_source(root, bad_reports="drop"), "50000003")


def test_a_report_whose_bytes_were_flipped_is_bad(tmp_path: Path) -> None:
    root = _archive(tmp_path / "jpg", LINES[4:5])
    zipped = root / "mimic-cxr-reports.zip"
    zipped.write_bytes(zipped.read_bytes().replace(b"Lungs", b"Lumps"))
    assert _reason(_source(root, bad_reports="drop"), "50000003") == "the report is damaged"


def test_a_zip_cut_short_stops_whatever_the_policy(tmp_path: Path) -> None:
    root = _archive(tmp_path / "jpg", LINES[4:5])
    zipped = root / "mimic-cxr-reports.zip"
    zipped.write_bytes(zipped.read_bytes()[:-30])
    with pytest.raises(InputError, match="not a readable zip file"):
        _load(_source(root, bad_reports="drop"), "50000003")


def test_absent_parts_of_the_archive_are_named(tmp_path: Path) -> None:
    root = _archive(tmp_path / "jpg")
    (root / "mimic-cxr-reports.zip").unlink()
    with pytest.raises(InputError, match=r"no reports at .*set source\.reports"):
        _source(root).list_studies()
    write_reports(root, LINES)
    (root / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(InputError, match="the gzip file is damaged"):
        _source(root).list_studies()
    (root / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    with pytest.raises(InputError, match=r"no mimic-cxr-2\.0\.0-split\.csv\.gz"):
        _source(root).list_studies()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"exclude_ms_cxr": "images"}, "exclude_ms_cxr needs"),
        ({"views": ["L"]}, "views has no frontal"),
        ({"exceptions": "skip"}, "exceptions"),
    ],
)
def test_profiles_that_cannot_work_are_refused(
    tmp_path: Path, values: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        _source(tmp_path, **values)
