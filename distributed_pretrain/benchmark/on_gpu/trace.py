"""One step under torch's profiler: launches, how busy the device is, the longest gap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiled

from distributed_pretrain.benchmark.launches import TOKENS, one_micro_batch
from distributed_pretrain.benchmark.on_gpu.parts import Bench, Report
from distributed_pretrain.benchmark.on_gpu.profiles import opened, profile
from distributed_pretrain.benchmark.on_gpu.training import bare_update
from distributed_pretrain.training.step import peak_memory_bytes

TRACE = "trace_{}.json.gz"
WARMUP_STEPS = 3

Interval = tuple[int, int]


def measure(bench: Bench, report: Report) -> None:
    """Of the bare loop and of the trainer; the traces lie in the output folder."""
    config = profile(bench, "lovt_a100", max_tokens=TOKENS)
    largest, *_ = config.training.groups(config.data.global_batch)
    # A whole step's trace would be too large to look at.
    with opened(one_micro_batch(config, largest)) as trainer:
        batches, groups = trainer.loader.batches(), [largest]
        pieces = next(batches).split(groups, pack=trainer.engine.packs_reports)
        for name, step in (
            ("bare", lambda: bare_update(trainer.engine, pieces, groups=groups)),
            ("trainer", lambda: trainer.step(batches)),
        ):
            for _ in range(WARMUP_STEPS):
                step()
            with profiled(activities=_activities(bench)) as seen:
                step()
                if bench.device == "cuda":
                    torch.cuda.synchronize()
            assert seen.profiler is not None
            results = seen.profiler.kineto_results
            assert results is not None
            kind = DeviceType.CUDA if bench.device == "cuda" else DeviceType.CPU
            ran = [
                (each.start_ns(), each.start_ns() + each.duration_ns())
                for each in results.events()
                if each.device_type() == kind and each.name() != "[memory]"
            ]
            found = figures_of(ran)
            report(**{f"{name}_{what}": value for what, value in found.items()})
            seen.export_chrome_trace(str(bench.output / TRACE.format(name)))
        batches.close()
        report(peak_memory_gib=peak_memory_bytes(trainer.engine.device) / 2**30)


def _activities(bench: Bench) -> list[ProfilerActivity]:
    on_gpu = [ProfilerActivity.CUDA] if bench.device == "cuda" else []
    return [ProfilerActivity.CPU, *on_gpu]


def figures_of(ran: Sequence[Interval]) -> dict[str, float]:
    """Of what a device ran (from, to, in ns): how much, its busy share, the longest gap in ms."""
    if not ran:
        return {"launches": 0.0, "busy_share": 0.0, "longest_gap_ms": 0.0}
    joined = union(ran)
    whole = joined[-1][1] - joined[0][0]
    busy = sum(end - start for start, end in joined)
    gaps = [after[0] - before[1] for before, after in pairwise(joined)]
    return {
        "launches": float(len(ran)),
        "busy_share": busy / max(1, whole),
        "longest_gap_ms": max(gaps, default=0) / 1e6,
    }


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same time in intervals that do not overlap, in order."""
    joined: list[Interval] = []
    for start, end in sorted(intervals):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
