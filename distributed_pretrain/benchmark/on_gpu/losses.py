"""The losses that compare every pair, beside the authors' loops and the plain forms."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch

from distributed_pretrain.benchmark import harness, loss, pairs, regions
from distributed_pretrain.benchmark.on_gpu.parts import Bench, Report, medians, turns_for

GIB = 2**30
METHODS: tuple[Literal["limitr", "gloria"], ...] = ("limitr", "gloria")
GLOBAL_BATCHES = {"32k": 32_768, "65k": 65_536}


def measure_pairs(bench: Bench, report: Report) -> None:
    """Each form's time over that of the authors' loop, both in bf16."""
    tiny = {"batch_size": 3, "regions": 4, "words": 3, "dim": 8} if bench.tiny else {}
    for method in METHODS:
        config = pairs.Settings.model_validate({"method": method, "batch_size": 48, **tiny})
        forms = [pairs.Form("loop", "bfloat16")]
        forms += [
            form
            for form in pairs.FORMS[method]
            if form.precision == "bfloat16" and form.name != "loop"
        ]
        steps = {
            form: pairs.pair_step(form, config, config.batch_size, device=bench.device)
            for form in forms
        }
        turns = turns_for(
            {form: partial(harness.seconds_of, step) for form, step in steps.items()},
            bench.share(0.3),
        )
        seconds = medians(turns)
        report(**{f"{method}_loop_seconds": seconds[forms[0]]})
        for form in forms[1:]:
            report(**{f"{method}_{form.name}_to_loop": seconds[form] / seconds[forms[0]]})


def measure_global(bench: Bench, report: Report) -> None:
    """Seconds and memory of the chunked form; beside the smaller batch the plain one."""
    for name, size in GLOBAL_BATCHES.items():
        batch, dim = (64, 8) if bench.tiny else (size, 512)
        forms = loss.loss_forms(chunk_size=16 if bench.tiny else 4096)
        chosen = ("plain", "chunked") if size == min(GLOBAL_BATCHES.values()) else ("chunked",)
        rows = loss.embeddings(batch, dim, 0, bench.torch_device)
        steps = {form: partial(_loss_and_gradients, forms[form], rows) for form in chosen}
        turns = turns_for(
            {form: partial(harness.seconds_of, step) for form, step in steps.items()},
            bench.share(0.3),
        )
        seconds = medians(turns)
        report(**{f"{name}_chunked_seconds": seconds["chunked"]})
        if "plain" in seconds:
            report(**{f"{name}_chunked_to_plain": seconds["chunked"] / seconds["plain"]})
        peak = harness.peak_bytes_above_start(steps["chunked"])
        report(**{f"{name}_chunked_gib": peak / GIB})


def _loss_and_gradients(form: loss.Loss, rows: list[torch.Tensor]) -> None:
    for each in rows:
        each.grad = None
    form(*rows).backward()


def measure_regions(bench: Bench, report: Report) -> None:
    """The contrast of sentences with all images' regions, in chunks and without."""
    tiny = {"images": 4, "regions": 4, "sentences": 2, "dim": 8} if bench.tiny else {}
    config = regions.Settings.model_validate({"device": bench.device, "repeats": 3, **tiny})
    seconds = medians(regions.seconds_by_form(config))
    report(
        chunked_seconds=seconds["chunked"], chunked_to_plain=seconds["chunked"] / seconds["plain"]
    )
    report(chunked_gib=regions.peak_bytes(config, "chunked") / GIB)
