"""A tiny run that commands train in seconds, and the means to start them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.methods.lovt.settings import LovtConfig
from tests.forks import Started, fork
from tests.paths import ROOT
from tests.tiny import short_run as short
from tests.tiny.sizes import HEADS, IMAGE_ENCODER, IMAGE_SIZE_PX, REPORT_ENCODER

TINY_RUN: dict[str, Any] = {
    "vocabulary_size": 100,
    "data": {"image_size_px": IMAGE_SIZE_PX, "global_batch": 8},
    "method": {
        "name": "lovt",
        "image_encoder": IMAGE_ENCODER,
        "report_encoder": REPORT_ENCODER,
        **{name: size for name, size in HEADS.items() if name in LovtConfig.model_fields},
    },
    "optimizer": {"learning_rate": 3e-3},
    "training": {
        "max_steps": 40,
        "validate_every_steps": 10,
        "checkpoint_every_steps": 4,
        "early_stopping": None,
        # A second of every validation, for tests that look at them alone.
        "pictures": False,
    },
}


class Command:
    """Starts the project's commands, one thread each, in forks that have imported the product."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()

    def __call__(
        self,
        *arguments: str | Path,
        package: str = "distributed_pretrain",
        launcher: tuple[str, ...] | None = None,
    ) -> Started:
        """`python -m PACKAGE ARGUMENTS` under way; with a launcher as a user starts it."""
        files = self._folder / str(next(self._numbers))
        words = [str(each) for each in arguments]
        if launcher is None:
            return fork(_run_command, package, words, files=files)
        output, errors = files.with_suffix(".out"), files.with_suffix(".err")
        with output.open("w") as out, errors.open("w") as err:
            process = subprocess.Popen(
                [*launcher, "-m", package, *words],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stdout=out,
                stderr=err,
            )
        return Started(process, output, errors)

    def complete(self, process: Started, status: int = 0) -> str:
        """Wait for the end, check the exit status, and return what it said on stderr."""
        ended = process.wait()
        process.kill()
        assert ended == status, process.said
        return process.said


def _run_command(package: str, arguments: list[str]) -> None:
    sys.exit(import_module(f"{package}.__main__").main(arguments))


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    return Command(tmp_path_factory.mktemp("commands"))


@pytest.fixture(scope="session")
def tiny_profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains on 60 studies and validates on 20; pass run_folder=... with it."""
    folder = tmp_path_factory.mktemp("tiny")
    write_synthetic_shards(
        folder / "shards",
        studies={"train": 60, "validate": 20},
        studies_a_shard=16,
        longest_side_px=72,
    )
    data = {**TINY_RUN["data"], "shards": str(folder / "shards")}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY_RUN | {"data": data}))
    return path


@pytest.fixture(scope="session")
def short_run(tiny_profile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six steps: see `tests.tiny.short_run`."""
    folder = tmp_path_factory.mktemp("short") / "run"
    assert short.train(tiny_profile, folder) == 0
    return folder
