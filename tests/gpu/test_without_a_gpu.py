"""`make test-gpu` where there is none: a line and a failure, never a silent pass."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.paths import ROOT


def test_without_a_gpu_the_gpus_tests_say_so_and_fail() -> None:
    (recipe,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "-m gpu" in line]
    words = recipe.partition("-m pytest ")[2].split()
    some = ("-p", "no:cacheprovider", "tests/gpu/test_runs.py")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *words, *some],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode != 0
    said = [line for line in ended.stdout.splitlines() if "no CUDA device" in line]
    assert len(said) == 1, ended.stdout + ended.stderr
    assert "tests was run (the default suite runs their code on the CPU)" in said[0]
    assert "passed" not in ended.stdout
