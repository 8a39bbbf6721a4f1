"""Time and peak memory of the contrast of sentences with all images' regions, in one run.

With and without chunks, forward and backward, from raw embeddings to their gradients, in one
process.
"""

from __future__ import annotations

import statistics
from functools import partial
from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from data_shards.processes import available_cores
from data_shards.profiles import Config
from distributed_pretrain.benchmark import harness
from distributed_pretrain.losses.sentence_region_contrast import sentence_region_contrast

# Recomputing adds one matrix product to forward's one and backward's two.
TARGET_TIME_RATIO = 1.2
TARGET_GIB = 1
FORMS = ("plain", "chunked")
WARM_UP_IMAGES = 2


class Settings(Config):
    """A batch of `images`, each with so many regions and `sentences`, all of them real."""

    images: PositiveInt = 512
    regions: PositiveInt = 49
    sentences: PositiveInt = 6
    dim: PositiveInt = 512
    chunk_size: PositiveInt = 512
    repeats: PositiveInt = 3
    threads: PositiveInt = Field(default_factory=available_cores)
    device: harness.Device = "cpu"


def run(config: Settings) -> None:
    """Measure and print."""
    print(
        f"forward + backward in float32: {config.images} images of {config.regions} regions, "
        f"{config.images * config.sentences} sentences, dim {config.dim}, chunks of "
        f"{config.chunk_size} sentences, {config.threads} threads, {config.device}; median seconds "
        f"of {config.repeats}; peaks are above the inputs, their gradients counted"
    )
    columns = {"form": "<10", "seconds": ">8.3f", "to plain (spread)": "<24", "peak MiB": ">9.1f"}
    table = harness.Table(columns)
    fresh = partial(
        harness.in_fresh_processes, threads=config.threads, as_ranks=False, device=config.device
    )
    (seconds,) = fresh(seconds_by_form, [(config,)])
    targets = []
    for form in FORMS:
        (peak,) = fresh(peak_bytes, [(config, form)])
        to_plain = harness.Ratios(seconds[form], seconds["plain"])
        table.row(form, statistics.median(seconds[form]), to_plain, peak / 2**20)
    targets = [
        harness.Target("chunked / plain", to_plain.median, TARGET_TIME_RATIO),
        harness.Target("GiB of chunked", peak / 2**30, TARGET_GIB),
    ]
    harness.conclude(targets, {"config": config.model_dump(), "rows": table.rows})


def seconds_by_form(config: Settings) -> dict[str, list[float]]:
    """Seconds of every turn."""
    given = _given(config, config.images)

    def seconds(form: str) -> float:
        return harness.seconds_of(lambda: _forward_and_backward(config, form, given))

    return harness.take_turns(
        {form: partial(seconds, form) for form in FORMS}, turns=config.repeats
    )


def peak_bytes(config: Settings, form: str) -> int:
    """The peak of one form above its inputs."""
    # The buffers of the libraries are not the loss's.
    _forward_and_backward(config, form, _given(config, WARM_UP_IMAGES))
    given = _given(config, config.images)
    return harness.peak_bytes_above_start(lambda: _forward_and_backward(config, form, given))


def _forward_and_backward(config: Settings, form: str, given: dict[str, Any]) -> None:
    # Gradients made anew: their allocation is part of a step.
    for each in (given["sentences"], given["regions"]):
        each.grad = None
    loss: Tensor = sentence_region_contrast(
        **given,
        most_sentences=config.sentences,
        chunk_size=config.chunk_size if form == "chunked" else None,
    )
    loss.backward()


def _given(config: Settings, images: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def embeddings(parts: int) -> Tensor:
        drawn = torch.randn(images, parts, config.dim, generator=generator)
        return drawn.to(config.device).requires_grad_()

    shape = (images, config.sentences)
    return {
        "sentences": embeddings(config.sentences),
        "regions": embeddings(config.regions),
        "sentence_mask": torch.ones(shape, dtype=torch.bool, device=config.device),
        "sentence_ids": torch.arange(images * config.sentences, device=config.device).view(shape),
    }
