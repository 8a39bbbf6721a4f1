from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.records.study import Sample
from data_shards.sources.formats.openi_reports import read_reports
from data_shards.sources.openi import OpeniConfig
from tests.data_shards.sources.tables_on_disk import samples_of, source_of, touch, write_lines

IMAGES = ("CXR7_7_IM-0007-3001", "CXR7_7_IM-0007-4001")
PROJECTIONS = (
    "uid,filename,projection",
    "7,7_IM-0007-3001.dcm.png,Lateral",
    "7,7_IM-0007-4001.dcm.png,Frontal",
)


def xml(
    uid: str = "CXR7", *, images: tuple[str, ...] = IMAGES, more: str = "", **texts: str
) -> str:
    sections = {"findings": "The lungs are clear. No XXXX.", "impression": "1. Normal."} | texts
    abstract = "".join(
        f'<AbstractText Label="{name.upper()}">{text}</AbstractText>'
        for name, text in sections.items()
    )
    parents = "".join(
        f'<parentImage id="{image}"><figureId>F1</figureId></parentImage>' for image in images
    )
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<eCitation><uId id="{uid}"/><MedlineCitation>'
        f"<Article><Abstract>{abstract}</Abstract></Article></MedlineCitation><MeSH>"
        f"<major>Opacity/lung/base/left</major><major>Opacity/lung/apex</major>"
        f"<automatic>lung</automatic></MeSH>{parents}{more}</eCitation>"
    )


def archive(root: Path, *reports: str, packed: bool = True) -> Path:
    touch(root / "png", (f"{name}.png" for name in IMAGES))
    write_lines(root / "indiana_projections.csv", *PROJECTIONS)
    if not packed:
        for number, report in enumerate(reports):
            write_lines(root / "ecgen-radiology" / f"{number}.xml", report)
        return root / "ecgen-radiology"
    path = root / "NLMCXR_reports.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for number, report in enumerate(reports):
            member = tarfile.TarInfo(f"ecgen-radiology/{number}.xml")
            member.size = len(report.encode())
            tar.addfile(member, io.BytesIO(report.encode()))
    return path


@pytest.mark.parametrize("packed", [True, False])
def test_a_report_has_the_images_that_it_names_whatever_its_file_is_called(
    packed: bool, tmp_path: Path
) -> None:
    reports = archive(tmp_path, xml(), xml("CXR12", images=()), packed=packed)
    source = source_of(OpeniConfig, reports=reports, image_root=tmp_path / "png")
    [sample] = samples_of(source).values()
    assert (sample.patient_id, sample.study_id) == ("CXR7", "CXR7")
    assert [(image.id, image.view) for image in sample.images] == [
        (IMAGES[0], "L"),
        (IMAGES[1], "PA"),
    ]
    assert sample.report.sentences["findings"] == ("The lungs are clear.", "No XXXX.")
    assert sample.report.sentences["impression"] == ("Normal.",)
    assert sample.labels == {"Opacity": 1.0, "normal": 0.0}
    [dropped] = source.list_dropped_images()
    assert (dropped.key, dropped.reason) == ("CXR12", "a report without an image")


def test_the_repack_gives_the_same_studies(tmp_path: Path) -> None:
    official = archive(tmp_path, xml())
    table = write_lines(
        tmp_path / "indiana_reports.csv",
        "uid,MeSH,Problems,image,indication,comparison,findings,impression",
        "7,Opacity/lung/base/left;Opacity/lung/apex,Opacity,Xray,,,"
        '"The lungs are clear. No XXXX.",1. Normal.',
    )
    found = []
    for reports in (official, table):
        [sample] = samples_of(
            source_of(OpeniConfig, reports=reports, image_root=tmp_path / "png")
        ).values()
        images = [(image.id, image.view, image.path) for image in sample.images]
        found.append((sample.report, sample.labels, images))
    assert found[0] == found[1]


def test_projections_of_a_report_that_the_repack_has_not_are_refused(tmp_path: Path) -> None:
    table = write_lines(
        tmp_path / "indiana_reports.csv",
        "uid,MeSH,Problems,image,indication,comparison,findings,impression",
        "8,normal,normal,Xray,,,Clear.,Normal.",
    )
    archive(tmp_path)
    source = source_of(OpeniConfig, reports=table, image_root=tmp_path / "png")
    with pytest.raises(InputError, match=r"image CXR7_7_IM-0007-3001: no report CXR7 in .*: fetch"):
        source.list_studies()


def test_without_projections_the_profile_must_say_how_images_lie(tmp_path: Path) -> None:
    reports = archive(tmp_path, xml())
    (tmp_path / "indiana_projections.csv").unlink()
    values = {"reports": reports, "image_root": tmp_path / "png"}
    with pytest.raises(
        InputError, match=r"unknown view ''.*source\.projections or source\.default"
    ):
        source_of(OpeniConfig, **values).list_studies()
    [sample] = samples_of(source_of(OpeniConfig, **values, default_view="PA")).values()
    assert [image.view for image in sample.images] == ["PA", "PA"]


@pytest.mark.parametrize(
    ("reports", "said"),
    [
        ((xml(), xml()), r"1.xml: report CXR7 is also in .*0.xml"),
        ((xml("CXR7"), xml("CXR8")), r"1.xml: image CXR7_7_IM-0007-3001 is also in 0.xml: dupl"),
        ((xml()[:-20],), "0.xml: damaged XML"),
        ((xml("").replace("uId", "other"),), "0.xml: no uId"),
        ((xml(opinion="Well."),), "AbstractText of Label 'OPINION': expected COMPARISON"),
        ((xml(images=("",)),), "a parentImage without id"),
        (('<!DOCTYPE x [<!ENTITY a "b">]><eCitation/>',), "entities of its own"),
        (('<?xml version="1.0" encoding="utf-99"?><eCitation/>',), "damaged XML .unknown encoding"),
        (('<?xml version="1.0" encoding="utf-7"?><eCitation/>',), "damaged XML .multi-byte"),
        ((), "no XML of a report in it"),
    ],
)
def test_reports_that_cannot_be_meant_are_refused_by_their_file(
    reports: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    path = archive(tmp_path, *reports)
    with pytest.raises(InputError, match=said):
        source_of(OpeniConfig, reports=path, image_root=tmp_path / "png").list_studies()


def test_a_cut_archive_and_an_absent_one_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, *(xml(f"CXR{n}", images=()) for n in range(200)))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match="not a sound tar"):
        read_reports(path)
    with pytest.raises(InputError, match=r"no such file: set source.reports to NLMCXR"):
        read_reports(tmp_path / "none.tgz")


@pytest.mark.parametrize("end_blocks", [0, 1])
def test_a_tar_that_was_cut_between_two_reports_is_refused(end_blocks: int, tmp_path: Path) -> None:
    packed = archive(tmp_path, *(xml(f"CXR{n}", images=()) for n in range(5)))
    path = tmp_path / "reports.tar"
    whole = gzip.decompress(packed.read_bytes())
    path.write_bytes(whole)
    assert len(read_reports(path)) == 5
    with tarfile.open(path) as tar:
        cut = list(tar)[3].offset
    path.write_bytes(whole[:cut] + bytes(512 * end_blocks))
    with pytest.raises(
        InputError,
        match=r"not a sound tar \(no header and no end at byte \d+,\d+\): fetch it again",
    ):
        read_reports(path)


def test_text_in_and_behind_a_child_element_is_read(tmp_path: Path) -> None:
    report = xml(findings="Seen <b>on</b> the <i/>left.").replace(
        "Opacity/lung/apex", "<b>Nodule</b>/lung"
    )
    [read] = read_reports(archive(tmp_path, report))
    assert read.texts["findings"] == "Seen on the left."
    assert set(read.labels) == {"Opacity", "Nodule", "normal"}


def test_what_macos_leaves_beside_the_reports_is_none(tmp_path: Path) -> None:
    folder = archive(tmp_path, xml(), packed=False)
    (folder / "._0.xml").write_bytes(b"\x00\x05\x16\x07")
    source = source_of(OpeniConfig, reports=folder, image_root=tmp_path / "png")
    assert len(source.list_studies()) == 1
    assert folder / "._0.xml" not in source.tables()


def test_the_official_archive_has_its_published_counts(tmp_path: Path) -> None:
    """OPENI_REPORTS is NLMCXR_reports.tgz, or its folder of XML."""
    path = os.environ.get("OPENI_REPORTS")
    if not path:
        pytest.skip("OPENI_REPORTS is not set")
    reports = read_reports(Path(path))
    assert len(reports) == 3955
    images = [image for report in reports for image in report.images or ()]
    assert len(images) == len(set(images)) == 7470
    assert sum(not report.images for report in reports) == 104
    both = [each for each in reports if each.texts["findings"] and each.texts["impression"]]
    assert len(both) == 3419
    touch(tmp_path, (f"{image}.png" for image in images))
    source = source_of(
        OpeniConfig,
        reports=Path(path),
        image_root=tmp_path,
        default_view="PA",
        bad_reports="drop",
    )
    loaded = [source.load_study(ref) for ref in source.list_studies()]
    assert len(loaded) == 3955 - 104
    samples = [sample for sample in loaded if isinstance(sample, Sample)]
    assert all(sample.report.sentences for sample in samples)
    assert all(
        sentence.strip() and "\n" not in sentence
        for sample in samples
        for sentences in sample.report.sentences.values()
        for sentence in sentences
    )
