"""What `serve` answers to an X-ray and a phrase, and its page in a real browser."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_shards.errors import InputError
from data_shards.own_inputs import sentences_of
from distributed_pretrain import load
from distributed_pretrain.__main__ import main
from distributed_pretrain.handover import serve
from distributed_pretrain.handover.answers import Answers, reports_of
from distributed_pretrain.handover.model import Model
from distributed_pretrain.handover.page import served, shown
from distributed_pretrain.handover.settings import ServeConfig
from distributed_pretrain.measures.pictures import heat_over
from distributed_pretrain.pretrain.build import open_split

pytestmark = pytest.mark.xdist_group("short_run")  # a fixture of one process
PHRASE = "opacity in the left lung"


@pytest.fixture(scope="module")
def model(short_run: Path) -> Model:
    return load(short_run, checkpoint="last")


@pytest.fixture(scope="module")
def answers(short_run: Path) -> Answers:
    return serve.answers_of(short_run, ServeConfig(checkpoint="last", split="validate"))


@pytest.fixture(scope="module")
def x_ray(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first validation study's image as a file."""
    split = open_split(model.data, "validate")
    path = tmp_path_factory.mktemp("x_ray") / "chest.jpg"
    path.write_bytes(split.read_member(0, split.read(0).images[0].member))
    return path


def test_an_answer_is_what_the_model_says(answers: Answers, model: Model, x_ray: Path) -> None:
    read = answers.read(x_ray)
    found = answers.answer(read, PHRASE)
    assert np.array_equal(found.x_ray, np.asarray(Image.open(x_ray)))
    cells = model.ground(x_ray, PHRASE)[0].numpy()
    assert (found.low, found.high) == pytest.approx((cells.min(), cells.max()), abs=1e-5)
    expected = heat_over(
        read / np.float32(255), cells - cells.min(), strongest=float(np.ptp(cells))
    )
    assert found.heat is not None
    assert np.abs(found.heat.astype(int) - expected).max() <= 1

    split, policy = open_split(model.data, "validate"), model.data.text_policy
    read_as = [sentences_of(each, policy) for each in reports_of(split, most=10**6)]
    similarity = model.similarity(x_ray, [" ".join(each) for each in dict.fromkeys(read_as)])[0]
    assert len(answers) == len(similarity)
    values = [each.similarity for each in found.nearest]
    assert values == pytest.approx(similarity.sort(descending=True).values[: len(values)].tolist())
    assert sum(each.text == " ".join(read_as[0]) for each in found.nearest) <= 1
    for each in found.nearest:
        assert each.studies == sum(" ".join(text) == each.text for text in read_as)


def test_without_a_phrase_there_is_no_heat(answers: Answers, x_ray: Path) -> None:
    found = answers.answer(answers.read(x_ray))
    assert found.heat is None
    assert found.nearest == answers.answer(answers.read(x_ray), PHRASE).nearest
    assert shown(found, "", len(answers)).count("<img") == 1


def test_reports_are_spread_over_a_split(model: Model) -> None:
    split = open_split(model.data, "validate")
    assert len(split) > 4
    assert reports_of(split, most=1) == [split.read(0).report]
    places = [place * len(split) // 4 for place in range(4)]
    assert reports_of(split, most=4) == [split.read(place).report for place in places]
    assert len(reports_of(split, most=10**6)) == len(split)


def test_texts_are_shown_as_texts(answers: Answers, x_ray: Path) -> None:
    phrase = '<script>alert("x")</script>'
    html = shown(answers.answer(answers.read(x_ray), phrase), phrase, len(answers))
    assert "<script" not in html
    assert html.count("<img") == html.count(" alt=") == 2


def test_an_export_is_served_with_shards_that_it_is_given(
    answers: Answers, model: Model, short_run: Path, x_ray: Path, tmp_path: Path
) -> None:
    export = tmp_path / "export"
    words = ("--to", "transformers", "checkpoint=last", f"output={export}")
    assert main(["export", str(short_run), *words]) == 0
    shards = model.data.shards
    assert isinstance(shards, Path)
    same = serve.answers_of(export, ServeConfig(shards=shards, split="validate"))
    mine, theirs = (each.answer(each.read(x_ray)).nearest for each in (answers, same))
    assert [each.text for each in mine] == [each.text for each in theirs]


def test_what_cannot_be_served_is_one_line(short_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.*or pass shards=FOLDER"):
        serve.answers_of(short_run, ServeConfig(checkpoint="last", shards=tmp_path / "gone"))


def test_a_missing_gradio_is_one_line(
    short_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["serve", str(short_run), "checkpoint=last"]) == 2
    said = capsys.readouterr().err
    assert said == "error: serve: Gradio is not installed: `pip install 'radalign[serve]'`\n"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser of this machine: no build of playwright's own is fetched."""
    driver = pytest.importorskip(
        "playwright.sync_api", reason="no playwright: pip install -e '.[dev]'"
    )
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium in PATH: apt install chromium")
    with driver.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.slow
@pytest.mark.parametrize(("width_px", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_an_x_ray_and_a_phrase_are_answered_in_a_browser(
    answers: Answers,
    x_ray: Path,
    browser: Any,
    tmp_path: Path,
    width_px: int,
    scheme: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("gradio", reason="no Gradio: pip install 'radalign[serve]'")
    asked: list[str] = []
    hosts: set[object] = set()
    resolved = socket.getaddrinfo

    def resolve(host: Any, *about: Any, **more: Any) -> Any:
        hosts.add(host)
        return resolved(host, *about, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with served(answers, title="short_run", host="127.0.0.1", port=0) as address:
        assert address.startswith("http://127.0.0.1:")
        uploads = Path(os.environ["GRADIO_TEMP_DIR"])
        page = browser.new_page(viewport={"width": width_px, "height": 900}, color_scheme=scheme)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.get_by_text("Drop an X-ray").wait_for()
        page.screenshot(path=tmp_path / "empty.png", full_page=True)
        page.set_input_files("input[type=file]", x_ray)
        page.get_by_alt_text("The X-ray", exact=True).wait_for()
        assert page.locator(".answer li").count() == 5
        page.get_by_label("Phrase").fill(PHRASE)
        page.get_by_role("button", name="Find").click()
        heat = page.get_by_alt_text(f"The X-ray under the heat of: {PHRASE}")
        heat.wait_for()
        assert heat.evaluate("each => each.naturalWidth") == Image.open(x_ray).width
        wide = page.evaluate("document.documentElement.scrollWidth")
        page.screenshot(path=tmp_path / "answer.png", full_page=True)
        # What is no image is one line.
        (tmp_path / "notes.txt").write_text("no image")
        page.set_input_files("input[type=file]", tmp_path / "notes.txt")
        page.get_by_role("alert").get_by_text("notes.txt").wait_for()
        assert str(uploads) not in page.content()
        page.screenshot(path=tmp_path / "wrong.png", full_page=True)
        # Gradio leaves an empty file for each upload, until the page is closed.
        kept = [each for each in uploads.rglob("*") if each.is_file() and each.stat().st_size]
        page.close()
    assert wide <= width_px
    assert kept == []
    assert not uploads.exists()
    # Neither the browser nor the server asks anybody else.
    assert hosts <= {"127.0.0.1", "localhost"}
    assert {url for url in asked if not url.startswith((address, "data:", "blob:"))} == set()
    assert np.asarray(Image.open(tmp_path / "answer.png").convert("L")).std() > 5


@pytest.mark.slow
def test_a_port_in_use_is_one_line(answers: Answers) -> None:
    pytest.importorskip("gradio", reason="no Gradio: pip install 'radalign[serve]'")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(InputError, match=f"port={port}: cannot be opened .*pass port=0"),
            served(answers, title="short_run", host="127.0.0.1", port=port),
        ):
            pass
    assert "GRADIO_TEMP_DIR" not in os.environ, "a folder that is gone"


@pytest.mark.slow
def test_it_serves_until_it_is_told_to_end(
    short_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio", reason="no Gradio: pip install 'radalign[serve]'")

    @contextlib.contextmanager
    def told_to_end(*about: Any, **where: Any) -> Iterator[str]:
        with served(*about, **where) as address:
            os.kill(os.getpid(), signal.SIGTERM)
            yield address

    monkeypatch.setattr(serve, "served", told_to_end)
    assert main(["serve", str(short_run), "checkpoint=last", "split=validate", "port=0"]) == 0
    assert "Open http://127.0.0.1:" in capsys.readouterr().out
