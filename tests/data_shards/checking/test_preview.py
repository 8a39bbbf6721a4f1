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
