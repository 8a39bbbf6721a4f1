"""Commands in messages can be pasted: what is put into them is quoted as a shell needs it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.paths import ROOT

SOURCES = sorted(
    path
    for package in ("data_shards", "distributed_pretrain", "launch")
    for path in (ROOT / package).rglob("*.py")
)
# The text of a command that goes on behind it.
COMMAND = re.compile(r"\b(python -m \w+ |tensorboard --)[^`]*$")


def unquoted(text: str) -> list[str]:
    """The values that f-strings and joins of a module put into commands as they are."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.JoinedStr):
            before = ""
            for part in node.values:
                if isinstance(part, ast.Constant):
                    before += str(part.value)
                elif COMMAND.search(before):
                    found.append(ast.unparse(part))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
            if isinstance(node.left, ast.Constant) and COMMAND.search(str(node.left.value)):
                found.append(ast.unparse(node.right))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "' '.join":
            found += [ast.unparse(node)] if "python -m" in ast.unparse(node) else []
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_message_puts_a_path_into_a_command_as_it_is(path: Path) -> None:
    assert unquoted(path.read_text()) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('f"watch: python -m launch logs -f {folder}"', 1),
        ('f"tensorboard --logdir {folder}"', 1),
        ('" ".join(["python -m launch", *words])', 1),
        ('"python -m launch status " + folder', 1),
        ('f"run `python -m data_shards verify` on {folder}"', 0),
        ("f\"see `{shell_line('python', '-m', 'launch', folder)}`\"", 0),
    ],
)
def test_the_search_finds_what_it_is_for(text: str, wrong: int) -> None:
    assert len(unquoted(text)) == wrong
