"""Every line that the FAQ quotes is one that the code says, word for word, about some values."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.paths import DOCS, ROOT

PACKAGES = ("data_shards", "distributed_pretrain", "launch")
FEWEST_LETTERS = 11
# Of torch, Python, Slurm.
OTHERS = (
    "Found no NVIDIA driver on your system",
    "The NVIDIA driver on your system is too old (found version 11040)",
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "<urlopen error [Errno -2] Name or service not known>",
    "Cannot find empty port in range: 7860-7860. You can specify a different port by setting the "
    "GRADIO_SERVER_PORT environment variable or passing the `server_port` parameter to `launch()`.",
    "Batch job submission failed: Invalid account or account/partition combination specified",
)


def quoted() -> list[str]:
    """The lines of indented blocks, without what is said before every error."""
    lines = (DOCS / "faq.md").read_text().splitlines()
    blocks = [line[4:] for line in lines if line.startswith("    ")]
    return [re.sub("^(error|warning): ", "", line) for line in blocks]


def pattern_of(node: ast.expr) -> str | None:
    """A text or an f-string as a pattern, whose groups are the values; None for what is neither."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    if not all(isinstance(each, ast.Constant | ast.FormattedValue) for each in parts):
        return None
    texts = [str(each.value) if isinstance(each, ast.Constant) else None for each in parts]
    if len("".join(filter(None, texts))) < FEWEST_LETTERS:
        return None
    pattern = "".join("(.*?)" if text is None else re.escape(text) for text in texts)
    return re.sub(r"\\{\w+\\}", "(.*?)", pattern)  # filled in later


@cache
def said() -> tuple[re.Pattern[str], ...]:
    """The texts of all modules, but for their docstrings."""
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            inner = {
                id(p) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for p in n.values
            }
            inner |= {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
            for node in ast.walk(tree):
                is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
                if (is_text or isinstance(node, ast.JoinedStr)) and id(node) not in inner:
                    assert isinstance(node, ast.expr)
                    found.add(pattern_of(node))
    return tuple(re.compile(each) for each in found if each is not None)


def is_said(line: str) -> bool:
    """Whether some text of the code is all of it; values in it that are prose are texts too."""
    return any(
        # A count may stand before a text.
        all(map(is_value_or_said, (re.sub(r"^\d[\d,]* (?=with)", "", g) for g in match.groups())))
        for match in (each.fullmatch(line) for each in said())
        if match is not None
    )


def is_value_or_said(text: str) -> bool:
    return is_value(text) or is_said(text)


def is_value(text: str) -> bool:
    """A path, a number, a few words; or what others say."""
    return text in OTHERS or len(re.findall(r"(?<!\S)[a-z]+(?!\S)", text)) < 4


@pytest.mark.parametrize("line", quoted())
def test_a_quoted_line_is_said_by_the_code(line: str) -> None:
    assert is_said(line)


def test_the_search_tells_what_is_said_from_what_is_not() -> None:
    assert len(quoted()) > 20
    assert is_said("serve: Gradio is not installed: `pip install 'radalign[serve]'`")
    assert not is_said("serve: Gradio is not there: `pip install 'radalign[serve]'`")
    gone = "runs/gone/manifest.json: no manifest: there is no such folder"
    assert not is_said(f"{gone}: name the folder that somebody else has written once")
