"""Commands that the pages print are commands that work."""

from __future__ import annotations

import itertools
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import data_shards.__main__
from data_shards.command_line import DONE, Command, run_command
from data_shards.profiles import load_profile
from distributed_pretrain.experiments.grid.points import read_points
from distributed_pretrain.experiments.settings import QuickstartConfig
from launch.commands import epilog, parsed
from launch.invocation import PACKAGES, read_invocation
from launch.settings import ClusterConfig
from tests.paths import ROOT
from tests.tiny import run as tiny_run

# What CONTRIBUTING adds.
EXAMPLE = ROOT / "tests" / "contributing" / "example"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


def printed_commands(text: str, start: str) -> Iterator[list[str]]:
    """The words of each line of a code block that starts so, with its continuations."""
    joined = re.sub(r"\\\n[#\s]*", "", text)
    for line in joined.splitlines():
        if line.startswith((f"    {start}", f"  {start}", f"#   {start}")):
            yield shlex.split(line.lstrip("# "), comments=True)


def everywhere(start: str) -> list[list[str]]:
    """What pages, profiles and helps print."""
    texts = [page.read_text() for page in PAGES]
    texts += [each.read_text() for each in (ROOT / "configs").rglob("*.yaml")]
    texts += [epilog(), data_shards.__main__.EXAMPLES]
    return [words for text in texts for words in printed_commands(text, start)]


def launch_commands() -> list[list[str]]:
    return everywhere("python -m launch ")


def project_commands() -> list[list[str]]:
    """Package and words of each printed command of the two packages, `a|b` as one of each."""
    found = []
    for start in ("python -m ", "accelerate launch ", "torchrun "):
        for printed in everywhere(start):
            words = printed[printed.index("-m") + 1 :]
            if words[0] not in PACKAGES:
                continue
            # Brackets mark what may be left out, and what is said of it.
            words = list(itertools.takewhile(lambda word: word[0] not in "[(", words))
            found += [list(each) for each in itertools.product(*(w.split("|") for w in words))]
    return found


def test_the_pages_print_commands() -> None:
    assert len(launch_commands()) > 10
    assert len(project_commands()) > 30
    printed = {tuple(words[:2]) for words in project_commands()}
    every = {(package, each.name) for package, table in PACKAGES.items() for each in table}
    assert every - printed == {("distributed_pretrain", "quickstart")}  # `make quickstart`


@pytest.mark.parametrize("words", launch_commands(), ids=" ".join)
def test_a_printed_command_of_the_launcher_is_understood(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    if "|" in words[3]:
        for verb in words[3].split("|"):
            with pytest.raises(SystemExit, match="0"):
                parsed([verb, "--help"])
        return
    # Brackets mark what may be left out, but for lists; dots what goes on.
    said = [word for word in words[3:] if "..." not in word]
    options = parsed([word if "=[" in word else word.strip("[]") for word in said])
    if options.command not in ("submit", "sweep"):
        return
    if options.cluster != Path("CLUSTER.yaml"):
        load_profile(ClusterConfig, options.cluster, options.overrides)
    # Of runs and profiles that a reader has.
    if "PROFILE.yaml" in options.words or "evaluate" in options.words:
        return
    for point in read_points(options.words, parts=getattr(options, "parts", None)):
        read_invocation(point.words)


@pytest.mark.parametrize("words", project_commands(), ids=" ".join)
def test_a_printed_command_is_understood(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    package, *arguments = words
    read: list[Command] = []

    def understood(command: Command) -> Command:
        def run(*about: Any, **_: object) -> int:
            subject, overrides = about if len(about) == 2 else (None, *about)
            read.append(command)
            # Some profiles are the reader's own, or an example's whose code is not here.
            is_elsewhere = subject is not None and (
                subject.name == "PROFILE.yaml" or (EXAMPLE / subject).is_file()
            )
            if command.settings is not None and not is_elsewhere:
                command.read(subject, overrides)
            return DONE

        # Read by `run`, if at all.
        return replace(command, run=run, settings=None)

    table = [understood(command) for command in PACKAGES[package]]
    status = run_command(
        # Dots stand for what a reader has.
        *(package, table, [word.replace("...", "THERE") for word in arguments]),
        description="",
    )
    assert status == DONE
    assert [command.name for command in read] == arguments[:1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_profiles_that_a_page_names_are_there(page: Path) -> None:
    named = set(re.findall(r"configs/[a-z]+/[a-z0-9_/]+\.yaml", page.read_text()))
    missing = [name for name in named if not (ROOT / name).is_file()]
    assert [name for name in missing if not (EXAMPLE / name).is_file()] == []


def test_accelerate_launch_works_as_the_readme_prints_it(
    tiny_profile: Path, command: tiny_run.Command, tmp_path: Path
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


def folders_of(value: Any) -> set[str]:
    """The folders under `runs/` that a profile names."""
    if isinstance(value, dict):
        return set().union(*map(folders_of, value.values()))
    return {value} if isinstance(value, str) and value.startswith("runs/") else set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_folders_that_a_page_names_are_those_that_commands_write(page: Path) -> None:
    """Of some profile, of the quickstart, or of a command on the page; or what lies in such one."""
    profiles = [*(ROOT / "configs").rglob("*.yaml"), *(EXAMPLE / "configs").rglob("*.yaml")]
    written = {str(QuickstartConfig().output)}
    written |= set().union(*(folders_of(yaml.safe_load(each.read_text())) for each in profiles))
    text = page.read_text()
    written |= set(re.findall(r"(?:\s(?:run_folder|output)=|--folder )(runs/[\w/]+)", text))
    named = set(re.findall(r"runs/[\w/.]*\w", text))
    assert {each for each in named if not {each, str(Path(each).parent)} & written} == set()


# Commands of others that no test can start, and what each needs.
NEEDS = {
    "git clone": "a network",
    "pip install": "a network",
    "hf download": "a network",
    "python -c": "a network: ImageNet's weights",
    "export HF_HOME": "a cluster's shared folder",
    "ssh": "a cluster",
    "tensorboard --logdir": "a browser",
    "pre-commit install": "a checkout of one's own",
}
PROGRAMS = (
    "git",
    "pip",
    "hf",
    "python",
    "export",
    "ssh",
    "tensorboard",
    "pre-commit",
    "make",
    "uv",
)
OURS = ("python -m ", "make ")


def lines_of_blocks(page: Path) -> list[str]:
    joined = re.sub(r"\\\n[#\s]*", "", page.read_text())
    return [line.strip() for line in joined.splitlines() if line.startswith("    ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_other_command_is_one_that_a_test_cannot_start(page: Path) -> None:
    for line in lines_of_blocks(page):
        command = line.removeprefix(".venv/bin/")
        if command.partition(" ")[0] in PROGRAMS and not command.startswith(OURS):
            assert command.startswith(tuple(NEEDS)), f"{line}: say in NEEDS what it needs"


def test_every_target_of_make_that_is_printed_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    printed = {
        name
        for page in PAGES
        for name in re.findall(r"(?:^    |`)make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }
    assert len(printed) > 4
    assert printed - targets == set()


def test_every_extra_that_is_printed_can_be_installed() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    sources = [path for package in (*PACKAGES, "launch") for path in texts(package)]
    printed = {
        name
        for path in (*PAGES, *sources)
        for name in re.findall(r"radalign\[(\w+)\]", path.read_text())
    }
    assert printed <= set(extras["optional-dependencies"])
    assert {"serve", "onnx", "dicom"} <= printed


def texts(package: str) -> list[Path]:
    return list((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_in_a_sentence_names_a_verb(page: Path) -> None:
    verbs = {(package, each.name) for package, table in PACKAGES.items() for each in table}
    verbs |= {("launch", name) for name in launch_verbs()}
    for package, verb in re.findall(r"`python -m (\w+) ([a-z][a-z-]*)", page.read_text()):
        assert (package, verb) in verbs


def launch_verbs() -> set[str]:
    return {word for words in launch_commands() for word in words[3].split("|")}
