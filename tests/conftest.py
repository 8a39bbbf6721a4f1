"""Shapes annotated with jaxtyping are checked in every test."""

from __future__ import annotations

import os

# Tests run side by side: one thread each, and never a look at the network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

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
pytest_plugins = ["tests.tiny.run"]
