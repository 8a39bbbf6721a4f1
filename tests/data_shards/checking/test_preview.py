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
