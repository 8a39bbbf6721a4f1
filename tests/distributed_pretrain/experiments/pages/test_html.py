"""Every HTML page in a real browser: within its width on a phone too, and with something on it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_shards.profiles import load_profile
from distributed_pretrain.experiments.pages.quickstart import write_page
from distributed_pretrain.experiments.suites.formats import in_html
from distributed_pretrain.experiments.suites.tables import PublishedTable, filled
from distributed_pretrain.measures.linear_dice import LINEAR_DICE
from distributed_pretrain.training.gallery import Shown
from distributed_pretrain.training.gallery import write_page as write_gallery
from tests.distributed_pretrain.experiments.pages.example import example
from tests.paths import CONFIGS


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_page(folder / "quickstart.html", example())
    picture = np.zeros((200, 1500, 3), np.uint8)
    write_gallery(
        folder / "gallery.html",
        "What an encoder sees",
        "runs/lovt: 200 studies.",
        {LINEAR_DICE.name: 0.301, "samples": 200.0},
        {LINEAR_DICE.name: LINEAR_DICE},
        [Shown("nearest_regions", picture, "The nearest regions.")],
    )
    for path in (CONFIGS / "downstream" / "tables").glob("*.yaml"):
        table = filled(load_profile(PublishedTable, path), {})
        (folder / f"{path.stem}.html").write_text(in_html(table))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("width_px", [360, 390, 1280])
@pytest.mark.parametrize(
    "name", ["quickstart", "gallery", "lovt_table_2", "limitr_supplement_table_1"]
)
def test_a_browser_shows_the_page_without_scrolling_sideways(
    pages: Path, tmp_path: Path, name: str, width_px: int
) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium in PATH: apt install chromium")
    page, frame = pages / f"{name}.html", tmp_path / "frame.html"
    # The frame has a phone's width even where the browser's window has a larger least one.
    frame.write_text(
        f'<iframe src="{page.as_uri()}" style="width:{width_px}px;height:900px;border:0"></iframe>'
        "<script>onload = () => { const page = frames[0].document.documentElement;"
        "document.title = `${page.scrollWidth} of ${page.clientWidth}` }</script>"
    )
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}"]
    shown = subprocess.run(
        [*command, "--dump-dom", frame.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert f"<title>{width_px} of {width_px}</title>" in shown.stdout
    picture = tmp_path / "page.png"
    subprocess.run(
        [*command, f"--screenshot={picture}", page.as_uri()],
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert np.asarray(Image.open(picture).convert("L")).std() > 5
