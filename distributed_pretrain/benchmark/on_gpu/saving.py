"""A checkpoint in the background, beside LoVT's steps on a batch in memory."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from distributed_pretrain.benchmark import checkpoint
from distributed_pretrain.benchmark.on_gpu.parts import Bench, Report

_TINY = {
    "image_size_px": 32,
    "backbone": "resnet18",
    "width": 0.125,
    "hidden_size": 32,
    "layers": 1,
    "embedding_dim": 16,
    "projection_hidden_dim": 16,
}


def measure(bench: Bench, report: Report) -> None:
    """One round of `benchmark checkpoint`."""
    sizes = {"batch": 2, **_TINY} if bench.tiny else {"batch": 32}
    config = checkpoint.Settings.model_validate({"rounds": 1, "usual_steps": 5, **sizes})
    with TemporaryDirectory(dir=bench.folder) as folder:
        (figures,) = checkpoint.measure(config, Path(folder))
    report(**figures)
