"""The quickstart's page: complete, self-contained, well-formed and escaped."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from distributed_pretrain.experiments.pages.quickstart import (
    Grounding,
    QuickstartPage,
    format_table,
    write_page,
)
from tests.distributed_pretrain.experiments.pages.example import (
    SIZE_PX,
    TRAINED,
    example,
)

VOID = {"meta", "br"}


class _Page(HTMLParser):
    """Checks the nesting while reading; keeps the text and every attribute that fetches."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        fetching = ("src", "href", "xlink:href", "data", "action", "poster", "srcset")
        self.fetched += [value or "" for name, value in attrs if name in fetching]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


def _written(tmp_path: Path, page: QuickstartPage) -> tuple[str, _Page]:
    path = tmp_path / "index.html"
    write_page(path, page)
    html = path.read_text(encoding="utf-8")
    parser = _Page()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return html, parser


def test_the_page_fetches_nothing(tmp_path: Path) -> None:
    html, parser = _written(tmp_path, example())
    assert parser.fetched
    # The markers of a chart's points refer to one that lies beside them.
    assert all(each.startswith(("data:image/png;base64,", "#")) for each in parser.fetched)
    assert not re.search(r"https?:|url\(|@import", html)
    assert not {"script", "link", "iframe"} & set(parser.tags)
    assert list(tmp_path.iterdir()) == [tmp_path / "index.html"]


def test_every_figure_and_text_is_on_the_page(tmp_path: Path) -> None:
    page = example()
    _, parser = _written(tmp_path, page)
    text = " ".join(" ".join(parser.text).split())
    figures = "0.5 % 7.2 % +6.7 2.8 % 24.2 % +21.5 −0.15 0.71 +0.87 21.1 % 30.0 % +8.9"
    figures += " 21.7 %; 43.5 % 10.1 % 61.0 % +50.9"
    for figure in re.findall(r"\S+(?: %)?", figures):
        assert figure in text, figure
    for phrase in (
        "a <b>nodule",
        "edema",
        "Hottest in the box",
        "Hottest elsewhere",
        page.run_folder,
        page.tensorboard_command,
        "local image",
    ):
        assert phrase in text
    for name, value in page.facts.items():
        assert f"{name} {value}" in text
    assert "validate 0.10" in text
    assert "R@5 30.0 %" in text
    # The second has no other finding's phrase.
    assert parser.tags.count("image") == 2 + 3 + 2
    # Two boxes, each on the X-ray and on the heat map of their phrase.
    assert parser.tags.count("rect") == 4


def test_texts_are_escaped(tmp_path: Path) -> None:
    html, parser = _written(tmp_path, example())
    assert "<script" not in html
    assert "Own &lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in html
    assert "Own <script>alert(1)</script> & more" in "".join(parser.text)


def test_each_heat_map_is_brightest_where_the_encoder_saw_its_phrase(tmp_path: Path) -> None:
    black = np.zeros((SIZE_PX, SIZE_PX), np.float32)
    own, other = (np.zeros((SIZE_PX, SIZE_PX), np.float32) for _ in range(2))
    own[40, 5], other[3, 30] = 0.01, 20
    grounding = Grounding(black, (), "nodule", own - 7, True, "edema", other)
    page = replace(example(), charts=(), retrievals=(), groundings=(grounding,))
    _, parser = _written(tmp_path, page)
    brightest = []
    for url in parser.fetched:
        png = base64.b64decode(url.removeprefix("data:image/png;base64,"))
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
        brightest.append(divmod(int(pixels.argmax()), SIZE_PX))
    assert brightest == [(0, 0), (40, 5), (3, 30)]


def test_only_a_report_that_equals_the_own_one_is_marked(tmp_path: Path) -> None:
    html, _ = _written(tmp_path, example())
    assert re.findall(r'<li class="own">(\w+)', html) == ["Clear"]
    assert html.count("its own</b>") == 1


def test_a_page_without_curves_and_examples_leaves_those_sections_out(tmp_path: Path) -> None:
    bare = replace(example(), charts=(), retrievals=(), groundings=())
    _, parser = _written(tmp_path, bare)
    assert parser.tags.count("section") == 1
    assert "svg" not in parser.tags


def test_a_figure_that_the_studies_did_not_allow_is_left_out(tmp_path: Path) -> None:
    """Of phrases whose findings are all alike, say."""
    incomplete = {name: value for name, value in TRAINED.items() if name != "grounding_cnr_gain"}
    page = replace(example(), trained=incomplete, blind={})
    html, _ = _written(tmp_path, page)
    assert "another finding" not in html.split("<tbody>")[1].split("</tbody>")[0]
    assert "sees no image" not in html
    assert len(format_table(page).splitlines()) == len(TRAINED)


def test_the_table_for_a_terminal_is_aligned_and_in_per_cent() -> None:
    lines = format_table(example()).splitlines()
    assert lines[0].split() == ["blind", "maps", "untrained", "trained", "change"]
    assert lines[2].split() == ["R@5", "2.8", "%", "24.2", "%", "+21.5"]
    assert lines[3].split() == [
        "Pointing",
        "21.7",
        "%;",
        "43.5",
        "%",
        "10.1",
        "%",
        "61.0",
        "%",
        "+50.9",
    ]
    assert lines[0].index(" trained") + 1 == lines[2].index("24.2") == lines[3].index("61.0")
