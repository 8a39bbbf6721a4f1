"""What is installed: a wheel with all it must hold, that runs where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from data_shards.errors import InputError
from data_shards.profiles import CONFIGS, load_profile
from distributed_pretrain.experiments.settings import QuickstartConfig
from distributed_pretrain.pretrain.settings import PretrainConfig
from tests.paths import CONFIGS as CHECKOUT_CONFIGS
from tests.paths import ROOT

PACKAGES = ("data_shards", "distributed_pretrain", "launch")
# As `make install` installs it: beside this interpreter, not in PATH.
UV = (sys.executable, "-m", "uv")
BUILT = ("pyproject.toml", "README.md", "LICENSE", "configs", *PACKAGES)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built, by what is installed here, of the source distribution of a copy.

    A build leaves folders behind; and what the archive lacks the wheel lacks too.
    """
    source = tmp_path_factory.mktemp("source")
    for name in BUILT:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source / name)
    archive = built("sdist", source)
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archive) as tar:
        tar.extractall(unpacked, filter="data")
    return built("wheel", unpacked / archive.name.removesuffix(".tar.gz"))


def built(what: str, source: Path) -> Path:
    """A wheel or a source distribution of a folder, in `out` there."""
    out = source / "out"
    build = f"from setuptools import build_meta; print(build_meta.build_{what}({str(out)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


def test_the_wheel_holds_what_is_read_at_run_time(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        scripts = next(name for name in held if name.endswith("entry_points.txt"))
        assert "radalign = launch.radalign:main" in archive.read(scripts).decode()
    suffixes = (".py", ".yaml", ".csv", ".jinja", ".typed")
    wanted = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in suffixes or path.name == "py.typed"
    }
    wanted |= {
        f"data_shards/configs/{path.relative_to(CHECKOUT_CONFIGS)}"
        for path in CHECKOUT_CONFIGS.rglob("*.yaml")
    }
    assert len(wanted) > 300
    assert wanted - held == set()
    assert {name.partition("/")[0] for name in held if "dist-info" not in name} == {*PACKAGES}


def test_profiles_of_the_project_are_found_without_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = load_profile(PretrainConfig, CHECKOUT_CONFIGS / "pretrain" / "lovt_a100.yaml")
    monkeypatch.chdir(tmp_path)
    assert load_profile(PretrainConfig, Path("configs/pretrain/lovt_a100.yaml")) == known
    assert load_profile(PretrainConfig, QuickstartConfig().profile).method.name == "lovt"
    own = tmp_path / "profiles" / "own.yaml"
    own.parent.mkdir()
    own.write_text("extends: configs/pretrain/lovt_a100.yaml\nseed: 7\n")
    assert load_profile(PretrainConfig, own) == known.model_copy(update={"seed": 7})
    with pytest.raises(InputError, match=f"configs/gone.yaml: no such profile: see {CONFIGS}"):
        load_profile(PretrainConfig, Path("configs/gone.yaml"))
    # One's own of that name goes before.
    mine = tmp_path / "configs" / "pretrain" / "lovt_a100.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("extends: ../../profiles/own.yaml\nrun_folder: runs/mine\n")
    mine_read = load_profile(PretrainConfig, Path("configs/pretrain/lovt_a100.yaml"))
    assert (mine_read.seed, mine_read.run_folder) == (7, Path("runs/mine"))


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["data", "verify", "configs/shards/gone.yaml"], 2, "gone.yaml: no such profile"),
        (["pretrain", "--help"], 0, "python -m distributed_pretrain pretrain"),
        (["launch", "status", "--help"], 0, "python -m launch status"),
        (["--help"], 0, "radalign data --help"),
    ],
    ids=["data", "a verb", "launch", "help"],
)
def test_radalign_is_python_m(words: list[str], status: int, says: str, tmp_path: Path) -> None:
    start = "import sys; sys.argv[0] = 'radalign'; from launch.radalign import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", start, *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert says in done.stdout + done.stderr


@pytest.mark.slow
def test_the_wheel_runs_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    """All of its dependencies are installed, by the pins: minutes, and a network or uv's cache."""
    python = tmp_path / "venv" / "bin" / "python"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }

    def run(*words: str | Path) -> str:
        done = subprocess.run(
            [str(word) for word in words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(*UV, "venv", "--python", sys.executable, python.parents[1])
    pins = ("--constraints", ROOT / "constraints.txt")
    run(*UV, "pip", "install", "--python", python, *pins, wheel)
    radalign = python.with_name("radalign")
    assert "software" in run(radalign, "doctor")
    small = ("phantom.image_size_px=64", "longest_side_px=64", "workers=1")
    few = ("phantom.train_studies=12", "phantom.validate_studies=4", "phantom.test_studies=6")
    own = ("phantom.archive=archive", "output=shards")
    for verb in ("build", "verify"):
        run(radalign, "data", verb, "configs/shards/phantom.yaml", *own, *small, *few)
    sizes = ("data.image_size_px=64", "data.global_batch=4", "method.image_encoder.width=0.125")
    steps = ("training.max_steps=2", "training.validate_every_steps=2")
    profile = "configs/pretrain/phantom_lovt.yaml"
    run(radalign, "pretrain", profile, "data.shards=shards", "run_folder=run", *sizes, *steps)
    # As a job: resolved here, started with `python -m`.
    at = ("configs/cluster/slurm_cpu.yaml", "executor=local", "cpus_per_rank=1")
    run(radalign, "launch", "submit", *at, "--dry-run", "--", "evaluate", "run")
    run(radalign, "evaluate", "run", "labelled_studies=8")
    assert any((tmp_path / "run").glob("evaluation_*"))


# Says what it needs only where it can be compiled.
COMPILED = {"ffcv"}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_everything_that_can_be_asked_for_is_pinned_as_it_is_asked_for() -> None:
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pinned = {canonicalize_name(each.name): next(iter(each.specifier)).version for each in pins}
    assert len(pinned) == len(pins)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for asked in [*project["dependencies"], *(each for some in EXTRAS.values() for each in some)]:
        wanted = Requirement(asked)
        assert canonicalize_name(wanted.name) in pinned, asked
        assert wanted.specifier.contains(pinned[canonicalize_name(wanted.name)]), asked


@pytest.mark.slow
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_pins_leave_a_way_to_install_every_extra(python: str, tmp_path: Path) -> None:
    """As far as packages say what they need: a network, or uv's cache. Nothing else is chosen."""
    extras = [word for name in EXTRAS if name not in COMPILED for word in ("--extra", name)]
    pins, resolved = ROOT / "constraints.txt", tmp_path / "resolved.txt"
    words = (*UV, "pip", "compile", "--quiet", "--no-annotate", "--no-header")
    where = ("--python-version", python, "--constraints", pins, "--output-file", resolved)
    done = subprocess.run(
        [str(each) for each in (*words, *where, *extras, ROOT / "pyproject.toml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    chosen = {Requirement(line).name for line in resolved.read_text().splitlines()}
    known = {canonicalize_name(Requirement(line).name) for line in pins.read_text().splitlines()}
    assert {canonicalize_name(name) for name in chosen} - known == set()
