"""Shapes annotated with jaxtyping are checked in every test."""

from __future__ import annotations

import os

# Tests run side by side: one thread each, and never a look at the network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from jaxtyping import install_import_hook

install_import_hook(
    [
        "distributed_pretrain.losses",
        "distributed_pretrain.models",
        "distributed_pretrain.alignment",
        "distributed_pretrain.measures",
    ],
    "beartype.beartype",
)

# After the hook: it imports the packages that are to be checked.
pytest_plugins = ["tests.tiny.run", "tests.tiny.fake_ranks"]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tests that ask for a GPU end the session where there is none: nothing passes in silence."""
    wanted = sum(item.get_closest_marker("gpu") is not None for item in session.items)
    if not wanted or session.config.option.collectonly:
        return
    # Not at the top: torch takes seconds, and the workers of xdist have it imported by now.
    from distributed_pretrain.training.engine.device import cuda_trouble

    if (trouble := cuda_trouble()) is not None:
        pytest.exit(
            f"no CUDA device: {trouble}: none of {wanted} tests was run (the default suite runs "
            "their code on the CPU)",
            returncode=pytest.ExitCode.NO_TESTS_COLLECTED,
        )
