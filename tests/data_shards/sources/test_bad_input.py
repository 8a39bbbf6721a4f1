import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from data_shards.__main__ import main
from data_shards.building.settings import ShardsConfig
from data_shards.records.manifest import read_manifest
from tests.data_shards.building.whole import build_shards

Row = dict[str, str]
ChangeRows = Callable[[Callable[[list[Row]], object]], None]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that `arguments` are refused with."""
    assert main(arguments) == 2
    # A slow machine reports progress before it comes to the error.
    *progress, line = capsys.readouterr().err.splitlines()
    assert all(each.startswith("build: ") for each in progress)
    assert line.startswith("error: ")
    return line


@pytest.fixture
def change_rows(archive: Path) -> ChangeRows:
    """Rewrites the table of the archive with its rows changed in place."""

    def change(by: Callable[[list[Row]], object]) -> None:
        table = archive / "pairs.csv"
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        by(rows)
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    return change


@pytest.mark.parametrize("workers", [1, 2])
def test_a_truncated_image_stops_the_build_by_name(
    archive: Path, profile: Path, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    path = archive / "images" / "p3_s0_PA.jpg"
    path.write_bytes(path.read_bytes()[:700])
    line = refused(capsys, "build", str(profile), f"workers={workers}")
    assert f"{path}: truncated or damaged image" in line
    assert "bad_images=drop" in line
    folder = profile.parent / "shards"
    assert not (folder / "manifest.json").exists()
    assert not list(folder.glob("*.partial"))


def test_an_image_that_is_not_there_is_told_with_its_row_and_why(
    archive: Path, profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = archive / "images" / "p3_s0_PA.jpg"
    path.rename(path.with_suffix(".JPG"))
    line = refused(capsys, "build", str(profile))
    assert re.search(rf"pairs\.csv: line \d+: {path}: missing image.*'p3_s0_PA.JPG' is there", line)


def test_what_was_read_otherwise_is_told_at_the_end_and_in_the_manifest(
    change_rows: ChangeRows,
    make_config: Callable[..., ShardsConfig],
    profile: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change_rows(lambda rows: rows[0].update(report="FINDINGS: Clear.<br>IMPRESSION: Normal."))
    assert main(["build", str(profile)]) == 0
    [said] = [line for line in capsys.readouterr().out.splitlines() if "warning: " in line]
    assert "1 x a report with HTML tags or entities" in said
    assert "(first: line 2)" in said
    assert read_manifest(make_config().output).warnings == (said.removeprefix("warning: "),)


def test_bad_images_can_be_left_out_and_are_counted(
    archive: Path, make_config: Callable[..., ShardsConfig]
) -> None:
    (archive / "images" / "p3_s0_L.jpg").unlink()
    (archive / "images" / "p2_s0_PA.jpg").write_bytes(b"")
    manifest = build_shards(make_config(bad_images="drop"))
    assert sum(manifest.samples_by_split.values()) == 27
    assert manifest.dropped_by_reason == {
        "an empty file": 1,
        "missing image": 1,
    }


def test_duplicate_ids_stop_the_build(
    change_rows: ChangeRows, profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_rows(lambda rows: rows.append(dict(rows[0])))
    assert "duplicate ids" in refused(capsys, "build", str(profile))
    assert not (profile.parent / "shards").exists()


def test_an_unknown_view_stops_the_build(
    change_rows: ChangeRows, profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_rows(lambda rows: rows[0].update(view="sideways"))
    assert "unknown view 'sideways'" in refused(capsys, "build", str(profile))
    assert not (profile.parent / "shards").exists()


def test_an_empty_split_stops_the_build(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "build", str(profile), "validate_fraction=0.000001")
    assert "split 'validate' has no patients" in line
    assert not (profile.parent / "shards").exists()


def test_a_split_whose_studies_all_drop_out_stops_the_build(
    archive: Path, profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (archive / "images").iterdir():
        path.write_bytes(b"")
    line = refused(capsys, "build", str(profile), "bad_images=drop")
    assert "split 'train' has no samples left" in line
    assert "x an empty file" in line
    assert "fractions" not in line
    assert not (profile.parent / "shards" / "manifest.json").exists()


def test_a_misspelt_key_is_refused_with_the_nearest(
    profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "build", str(profile), "jpeg_qualty=90")
    assert "unknown key 'jpeg_qualty': did you mean 'jpeg_quality'?" in line


def test_fractions_that_leave_nothing_to_train_on_are_refused(
    profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "build", str(profile), "validate_fraction=0.5", "test_fraction=0.5")
    assert "leave no patient for training" in line


def test_an_output_that_is_a_file_is_refused(
    profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "build", str(profile), f"output={profile}")
    assert "cannot hold the shards (it is a file)" in line
    assert profile.is_file()


def test_an_output_that_is_a_link_to_nothing_is_refused(
    profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to("gone")
    line = refused(capsys, "build", str(profile), f"output={tmp_path / 'link'}")
    assert "cannot hold the shards (it is a link to gone, which is not there)" in line
    assert not (tmp_path / "gone").exists()


def test_an_output_is_the_folder_that_was_typed(
    profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["build", str(profile), "output=set #2: 2026-11-28", "source.licence=CC0 #1"]) == 0
    assert read_manifest(tmp_path / "set #2: 2026-11-28").licence == "CC0 #1"


def test_a_profile_that_cannot_be_opened_is_one_line(
    profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = profile / "inside.yaml"
    line = refused(capsys, "build", str(inside))
    assert line == (
        f"error: {inside}: Not a directory: a file stands where a folder should: check the path"
    )


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_a_tar_that_is_not_whole_leaves_no_preview(
    profile: Path,
    make_config: Callable[..., ShardsConfig],
    capsys: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    folder = make_config().output
    build_shards(make_config())
    tar = folder / "test-000000.tar"
    if damage == "missing":
        tar.unlink()
    else:
        tar.write_bytes(tar.read_bytes()[:2000])
    line = refused(capsys, "preview", str(profile), "--split", "test")
    reason = {"missing": "No such file or directory: check the path", "cut short": "is damaged"}
    assert line.startswith(f"error: {tar}: ")
    assert reason[damage] in line
    assert not (folder / "preview_test.png").exists()


@pytest.mark.parametrize("command", ["verify", "preview"])
def test_an_unfinished_folder_is_refused_with_the_remedy(
    profile: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    line = refused(capsys, command, str(profile))
    assert "no manifest" in line
    assert "data_shards build" in line


def test_a_manifest_of_another_schema_is_refused(
    profile: Path, make_config: Callable[..., ShardsConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config()
    build_shards(config)
    manifest = config.output / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema_version": 1', '"schema_version": 9'))
    assert "schema version 9" in refused(capsys, "verify", str(profile))
