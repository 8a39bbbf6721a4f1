"""A newcomer does what CONTRIBUTING says, in a copy of the checkout, and the generic tests pass."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

EXAMPLE = ROOT / "tests" / "contributing" / "example"
FILES = sorted(str(path.relative_to(EXAMPLE)) for path in EXAMPLE.rglob("*.*") if path.is_file())
# `path`: and then what stands in it, or what changes.
BLOCKS = re.findall(
    r"^`([^`\n]+)`:\n\n```(\w+)\n(.*?)^```$",
    (ROOT / "CONTRIBUTING.md").read_text(),
    re.MULTILINE | re.DOTALL,
)
SHOWN = [(path, text) for path, kind, text in BLOCKS if kind != "diff"]
CHANGES = [(path, text) for path, kind, text in BLOCKS if kind == "diff"]
# The generic tests by the names of what is added, and the newcomer's own.
GENERIC = {
    "tests/distributed_pretrain/methods/test_every_method.py": 5,
    "tests/data_shards/sources/test_every_source.py": 11,
    "tests/distributed_pretrain/measures/test_every_measure.py": 1,
    "tests/distributed_pretrain/downstream/test_every_protocol.py": 4,
}
OWN = {path: 1 for path in FILES if Path(path).name.startswith("test_")}
ADDED = "barlow_twins or hospital_export or PairDistance or pair_distance or mlp"


def pieces_of(text: str) -> list[str]:
    """What stands between lines of `...`."""
    pieces = re.split(r"^\.\.\.\n", text, flags=re.MULTILINE)
    return [piece.strip("\n") + "\n" for piece in pieces if piece.strip()]


def test_the_page_shows_the_files_kept_here() -> None:
    assert [path for path, _ in SHOWN] == list(dict.fromkeys(path for path, _ in SHOWN))
    assert sorted(path for path, _ in SHOWN) == [
        path for path in FILES if not path.endswith("__init__.py")
    ]
    for path, text in SHOWN:
        kept = (EXAMPLE / path).read_text()
        if "...\n" not in text:
            assert text == kept, path
        for piece in pieces_of(text):
            assert piece in kept, f"{path} has no longer:\n{piece}"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout with the newcomer's files, changed as the page says."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("configs", "data_shards", "distributed_pretrain", "launch", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "CONTRIBUTING.md", "README.md"):
        shutil.copy(ROOT / name, root)
    shutil.rmtree(root / "tests" / "contributing")
    shutil.copytree(EXAMPLE, root, dirs_exist_ok=True)
    for path, text in CHANGES:
        changed = (root / path).read_text()
        for hunk in pieces_of(text):
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] != "+")
            after = "".join(line[1:] for line in lines if line[0] != "-")
            assert changed.count(before) == 1, f"{path} has no such place:\n{before}"
            changed = changed.replace(before, after)
        (root / path).write_text(changed)
    return root


def run(copy: Path, tool: str, *words: str) -> str:
    """What a tool of this environment says in the copy; it must end well."""
    done = subprocess.run(
        [Path(sys.executable).with_name(tool), *words],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_kind_costs_one_union(copy: Path) -> None:
    assert len(CHANGES) == 4
    for path, text in CHANGES:
        assert path.endswith("/catalog.py")
        added = [line for line in text.splitlines() if line.startswith("+")]
        assert len(added) == 2, "an import and a name"


def test_the_generic_tests_take_what_was_added(copy: Path) -> None:
    said = run(copy, "pytest", "-v", "-p", "no:cacheprovider", "-k", ADDED, *GENERIC, *OWN)
    for path, count in (GENERIC | OWN).items():
        passed = re.findall(rf"^{re.escape(path)}::.* PASSED", said, re.MULTILINE)
        assert len(passed) >= count, f"{path}: {len(passed)} passed\n{said}"


def test_lint_and_layers_take_what_was_added(copy: Path) -> None:
    run(copy, "ruff", "check", ".")
    run(copy, "ruff", "format", "--check", ".")
    assert "0 broken" in run(copy, "lint-imports")


@pytest.mark.slow
def test_the_types_of_what_was_added_are_sound(copy: Path) -> None:
    run(copy, "mypy")


@pytest.mark.slow
def test_two_ranks_train_the_method_as_one_process(copy: Path) -> None:
    run(copy, "pytest", "-k", ADDED, "tests/distributed/test_every_method_on_ranks.py")
