"""Links between pages lead somewhere: to a file, and to a heading of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.test_printed_commands import PAGES
from tests.paths import DOCS, ROOT

NOTEBOOKS = sorted(DOCS.glob("*.ipynb"))


def text_of(page: Path) -> str:
    """What a reader sees, without blocks of code."""
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text())["cells"]
        return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    fenced = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return "\n".join(line for line in fenced.splitlines() if not line.startswith("    "))


def links_of(text: str) -> Iterator[str]:
    """The targets of links and pictures, of Markdown and HTML, to this checkout."""
    prose = re.sub(r"`[^`\n]*`", "code", text)
    for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", prose):
        link = "".join(target)
        if not re.match(r"https?:|mailto:", link):
            yield link


def anchors_of(page: Path) -> set[str]:
    """The names of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).strip().replace(" ", "-") for each in headings}


def broken(page: Path) -> list[str]:
    found = []
    for link in links_of(text_of(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: page.name)
def test_links_of_a_page_lead_to_what_is_there(page: Path) -> None:
    assert broken(page) == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in reached or page.suffix not in (".md", ".ipynb") or not page.is_file():
            continue
        reached.add(page)
        paths = (link.partition("#")[0] for link in links_of(text_of(page)))
        ahead += [(page.parent / path).resolve() for path in paths if path]
    assert {*PAGES, *NOTEBOOKS} - reached == set()


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# Two words, a link: `x`\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](there.md#two-words-a-link-x) [c](gone.md) [d](there.md#gone)\n"
        '[e](#none) `[h](...)` <img src="gone.png"> ![f](gone2.png) [g](https://example.org)\n'
    )
    assert broken(page) == ["gone.md", "there.md#gone", "#none", "gone.png", "gone2.png"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_picture_says_what_it_shows(page: Path) -> None:
    assert re.findall(r"!\[\s*\]\(", text_of(page)) == []
    assert [each for each in re.findall(r"<img[^>]*>", text_of(page)) if "alt=" not in each] == []
