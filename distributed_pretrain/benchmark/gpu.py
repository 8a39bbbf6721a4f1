"""Eight minutes on a GPU: ceilings, profiles through the trainer, losses, a save, a trace.

Images and weights are drawn here, nothing is downloaded. Each part is a process of its own with a
limit: one that fails or hangs leaves its line, and the rest goes on. What is known is written after
each part, to a file of JSON and a page.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, PositiveFloat

from data_shards.errors import InputError
from data_shards.processes import start_server
from data_shards.profiles import CONFIGS, Config
from distributed_pretrain.benchmark import harness
from distributed_pretrain.benchmark.on_gpu import (
    ceilings,
    losses,
    page,
    saving,
    trace,
    training,
    variants,
)
from distributed_pretrain.benchmark.on_gpu.parts import Bench, Part, Result, run_part, warm_up
from distributed_pretrain.benchmark.on_gpu.profiles import write_shards
from distributed_pretrain.training.engine.device import cuda_trouble

PartName = Literal[
    "ceilings",
    "lovt_a100",
    "lovt_a100_77",
    "lovt_a100_80gb",
    "limitr_a100",
    "gloria_a100",
    "mgca_a100",
    "byol_a100",
    "pairs",
    "global_loss",
    "regions",
    "checkpoint",
    "trace",
    "variants",
]


def _profile_part(seconds: float, name: str, what: str = "", **data: int) -> Part:
    title = f"{name}{what} through the trainer, beside a bare loop and a plain one"
    return Part(title, seconds, partial(training.measure_profile, name=name, data=data))


MINUTES = 8.0
# Their limits are that together.
PARTS: dict[str, Part] = {
    "ceilings": Part("What the device does at best", 40, ceilings.measure),
    "lovt_a100": _profile_part(60, "lovt_a100", ", 128 tokens", max_tokens=128),
    "lovt_a100_77": _profile_part(35, "lovt_a100", ", 77 tokens", max_tokens=77),
    # Of such reports a card of 40 GB has room for it, too.
    "lovt_a100_80gb": _profile_part(45, "lovt_a100_80gb", ", 128 tokens", max_tokens=128),
    "limitr_a100": _profile_part(40, "limitr_a100"),
    "gloria_a100": _profile_part(30, "gloria_a100"),
    "mgca_a100": _profile_part(30, "mgca_a100"),
    "byol_a100": _profile_part(30, "byol_a100"),
    "pairs": Part("Pair losses in bf16 over the authors' loops in bf16", 30, losses.measure_pairs),
    "global_loss": Part("The global loss of 32k and 65k pairs", 20, losses.measure_global),
    "regions": Part("Sentences and all images' regions", 10, losses.measure_regions),
    "checkpoint": Part("A checkpoint in the background, beside steps", 35, saving.measure),
    "trace": Part("One step under the profiler", 30, trace.measure),
    "variants": Part("LoVT's micro-batch with other settings, in turns", 45, variants.measure),
}


class Settings(Config):
    """`only` some parts; `minutes` for all of them together, of which each has its share.

    `profiles` is the folder of the project's own, `output` where the page, its figures and the
    traces go. With `tiny` everything is so small that a CPU does it, and nothing is judged.
    """

    only: tuple[PartName, ...] = ()
    minutes: PositiveFloat = Field(MINUTES, le=60)
    device: harness.Device = "cuda"
    tiny: bool = False
    profiles: Path = CONFIGS / "pretrain"
    output: Path = Path("runs/benchmark_gpu")


def run(config: Settings) -> None:
    """Measure, write and print."""
    if config.device == "cuda" and (trouble := cuda_trouble()) is not None:
        raise InputError(
            f"benchmark gpu: {trouble}: device=cpu tiny=true tries its code, and measures nothing"
        )
    if not config.profiles.is_dir():
        raise InputError(f"profiles={config.profiles}: no such folder: leave it out")
    config.output.mkdir(parents=True, exist_ok=True)
    facts = facts_of(config)
    card = facts["device"] if config.device == "cuda" and not config.tiny else None
    chosen = {
        name: replace(part, seconds=part.seconds * config.minutes / MINUTES)
        for name, part in PARTS.items()
        if name in (config.only or PARTS)
    }
    results: dict[str, Result] = {}
    write = partial(page.write, config.output, chosen, results, facts=facts, card=card)
    with tempfile.TemporaryDirectory() as folder:
        processes = start_server(preload=[__name__])
        bench = Bench(
            config.device,
            config.tiny,
            config.profiles.absolute(),
            Path(folder),
            config.output.absolute(),
        )
        write_shards(bench.folder, tiny=config.tiny)
        warm_up(processes)
        deadline = time.monotonic() + 60 * config.minutes
        write()
        for name, part in chosen.items():
            left = deadline - time.monotonic()
            results[name] = Result(error="no time was left")
            if left > 0:
                results[name] = run_part(part, bench, processes, most=left)
            _print(name, results[name])
            write()
    print(f"written to {config.output / page.PAGE_NAME}")
    plain = {name: vars(result) for name, result in results.items()}
    missing = page.missing_of(results, card)
    for each in missing:
        print(f"  {each}")
    figures = {"facts": facts, "parts": plain, "missing": missing}
    harness.conclude(page.targets_of(results, card), figures)


def _print(name: str, result: Result) -> None:
    print(f"{name}, {result.seconds:.0f} s" + (f": {result.error}" if result.error else ""))
    harness.print_figures(result.figures)


def facts_of(config: Settings) -> dict[str, str]:
    """The device, its driver, clocks and power limit, and torch."""
    facts = {"device": platform.processor() or platform.machine(), "torch": torch.__version__}
    if config.device == "cuda":
        facts["device"] = torch.cuda.get_device_name()
        facts["CUDA"] = str(torch.version.cuda)
        asked = "driver_version,clocks.max.sm,power.limit"
        if tool := shutil.which("nvidia-smi"):
            words = [tool, f"--query-gpu={asked}", "--format=csv,noheader", "--id=0"]
            told = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
            facts[asked.replace(",", ", ")] = told.stdout.strip() or told.stderr.strip()
    return facts | {"tiny": str(config.tiny).lower()}
