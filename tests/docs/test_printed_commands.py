"""Commands that the pages print are commands that work."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from launch.commands import read_command

from data_shards.profiles import load_profile
from distributed_pretrain.experiments.points import read_points
from launch.__main__ import EXAMPLES, parsed
from launch.settings import ClusterConfig
from tests.paths import ROOT

if TYPE_CHECKING:
    from tests.tiny.run import Command

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


def printed_commands(text: str, start: str) -> Iterator[list[str]]:
    """The words of each line of a code block that starts so, with its continuations."""
    joined = re.sub(r"\\\n[#\s]*", "", text)
    for line in joined.splitlines():
        if line.startswith((f"    {start}", f"  {start}", f"#   {start}")):
            yield shlex.split(line.lstrip("# "), comments=True)


def launch_commands() -> list[list[str]]:
    texts = [page.read_text() for page in PAGES]
    texts += [EXAMPLES, *(each.read_text() for each in (ROOT / "configs").rglob("*.yaml"))]
    return [words for text in texts for words in printed_commands(text, "python -m launch ")]


def test_the_pages_print_commands_of_the_launcher() -> None:
    assert len(launch_commands()) > 10


@pytest.mark.parametrize("words", launch_commands(), ids=" ".join)
def test_a_printed_command_of_the_launcher_is_understood(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    # Brackets mark what may be left out, dots what goes on.
    options = parsed([word.strip("[]") for word in words[3:] if "..." not in word])
    if options.command not in ("submit", "sweep"):
        return
    if options.cluster != Path("CLUSTER.yaml"):
        load_profile(ClusterConfig, options.cluster, options.overrides)
    # Of runs and profiles that a reader has.
    if "PROFILE.yaml" in options.words or "evaluate" in options.words:
        return
    for point in read_points(options.words, parts=getattr(options, "parts", None)):
        read_command(point.words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_profiles_that_a_page_names_are_there(page: Path) -> None:
    named = set(re.findall(r"configs/[a-z]+/[a-z0-9_/]+\.yaml", page.read_text()))
    assert {name for name in named if not (ROOT / name).is_file()} == set()


def test_accelerate_launch_works_as_the_readme_prints_it(
    tiny_profile: Path, command: Command, tmp_path: Path
) -> None:
    [words] = printed_commands((ROOT / "README.md").read_text(), "accelerate launch")
    config = words[words.index("--config_file") + 1]
    assert words[:4] == ["accelerate", "launch", "--config_file", config]
    assert words[4:7] == ["-m", "distributed_pretrain", "pretrain"]
    folder = tmp_path / "run"
    said = command.complete(
        command(
            *("pretrain", tiny_profile, f"run_folder={folder}", "training.max_steps=2"),
            launcher=(sys.executable, "-m", "accelerate.commands.launch", *words[2:4]),
        )
    )
    assert "2 steps of 8 pairs on 1 x" in said
    assert (folder / "checkpoints" / "last" / "COMPLETE").exists()
