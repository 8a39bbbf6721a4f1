import os
import re
from pathlib import Path

import pytest
from PIL import Image

from data_shards.__main__ import main


def test_the_contact_sheet_shows_as_many_studies_as_asked_for(
    profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(profile)]) == 0
    capsys.readouterr()
    assert main(["preview", str(profile), "--samples", "1"]) == 0
    path = Path(capsys.readouterr().out.strip())
    with Image.open(path) as sheet:
        one = sheet.size
    assert main(["preview", str(profile), "--split", "train", "--samples", "6", "seed=0"]) == 0
    with Image.open(path) as sheet:
        assert sheet.width > 2 * one[0]
        assert sheet.height > 1.8 * one[1]
        assert len(sheet.getcolors(1 << 24) or ()) > 100


def test_an_option_that_is_not_known_is_refused(
    profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main(["preview", str(profile), "--rows", "3"])
    assert error.value.code == 2
    assert "unrecognized arguments: --rows 3" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(6000, 1), (1, 6000), (1, 1)])
def test_images_of_any_shape_keep_the_sheet_small(
    profile: Path, archive: Path, capsys: pytest.CaptureFixture[str], size: tuple[int, int]
) -> None:
    for path in (archive / "images").iterdir():
        Image.linear_gradient("L").resize(size).save(path)
    levels = archive / "images" / "p0_s0_PA.jpg"
    Image.linear_gradient("L").save(levels)
    assert main(["build", str(profile), "longest_side_px=6000"]) == 0
    capsys.readouterr()
    assert main(["preview", str(profile), "--samples", "6"]) == 0
    with Image.open(capsys.readouterr().out.strip()) as sheet:
        assert max(sheet.size) < 2000


def test_the_sheet_goes_where_it_can_be_written(
    profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder in the sheet's way stands for a disk that is read-only, which root cannot make."""
    assert main(["build", str(profile)]) == 0
    (tmp_path / "shards" / "preview_train.png.partial").mkdir()
    assert main(["preview", str(profile)]) == 2
    assert "pass --sheet FILE.png" in capsys.readouterr().err
    sheet = tmp_path / "sheet.png"
    assert main(["preview", str(profile), "--sheet", str(sheet), "--samples", "1"]) == 0
    assert capsys.readouterr().out.strip() == str(sheet)
    with Image.open(sheet) as image:
        assert image.width > 400


@pytest.mark.parametrize("cut", [0, 512, 3000])
def test_damaged_shards_are_no_sheet_but_a_line(
    profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: int
) -> None:
    assert main(["build", str(profile)]) == 0
    os.truncate(tmp_path / "shards" / "train-000000.tar", cut)
    assert main(["preview", str(profile)]) == 2
    assert re.search(r"train-000000.tar: .* is damaged", capsys.readouterr().err)


def test_a_pipe_in_a_tar_s_place_is_not_waited_for(
    profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(profile)]) == 0
    tar = tmp_path / "shards" / "train-000000.tar"
    tar.unlink()
    os.mkfifo(tar)
    assert main(["preview", str(profile)]) == 2
    assert f"{tar}: a pipe" in capsys.readouterr().err


def test_a_sheet_takes_no_other_file_s_place(
    profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(profile)]) == 0
    manifest = tmp_path / "shards" / "manifest.json"
    other = tmp_path / "notes.png"
    other.write_text("mine")
    for taken in (manifest, other):
        before = taken.read_bytes()
        assert main(["preview", str(profile), "--sheet", str(taken)]) == 2
        assert "the sheet is a PNG" in capsys.readouterr().err
        assert taken.read_bytes() == before
