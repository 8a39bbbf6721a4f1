"""How far a run is and how well it does, from the files of its folder alone."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from distributed_pretrain.run_folder.folder import MARKER, RunFolder, step_folders, step_of

TAIL_BYTES = 200_000
_TIMING_SUFFIXES = ("_per_second", "_seconds")
_TIMING_NAMES = frozenset({"memory_bytes", "data_wait_share", "mfu"})


def is_timing(name: str) -> bool:
    """Whether a metric may differ between two otherwise identical runs."""
    return name in _TIMING_NAMES or name.endswith(_TIMING_SUFFIXES)


@dataclass(frozen=True)
class RunProgress:
    """The newest step with its loss, the rate of late, and the seconds left at that rate.

    `written` is when, in seconds since 1970: an earlier job may have done it.
    """

    step: int
    total_steps: int | None
    loss: float | None
    pairs_per_second: float | None
    seconds_left: float | None
    written: float


def read_progress(run: RunFolder) -> RunProgress | None:
    """None where nothing has been trained yet."""
    lines = [each for each in run.read_metrics(last_bytes=TAIL_BYTES) if each["split"] == "train"]
    if not lines:
        return None
    newest, recent = lines[-1], lines[-20:]
    step = int(newest["step"])
    starts = run.starts.read()
    total = starts[-1].get("total_steps") if starts else None
    seconds = [line["step_seconds"] for line in recent if "step_seconds" in line]
    rates = [line["pairs_per_second"] for line in recent if "pairs_per_second" in line]
    return RunProgress(
        step=step,
        total_steps=total,
        loss=newest.get("total"),
        pairs_per_second=statistics.median(rates) if rates else None,
        written=run.metrics.stat().st_mtime,
        seconds_left=statistics.median(seconds) * (total - step) if seconds and total else None,
    )


def saved_step(run: RunFolder) -> int:
    """The step of the newest complete checkpoint, by its marker alone; 0 without one."""
    complete = [each for each in step_folders(run.checkpoints) if (each / MARKER).exists()]
    return step_of(complete[-1]) if complete else 0


def best_validation(run: RunFolder) -> dict[str, float]:
    """What validation measured at the best checkpoint, without timings; empty before the first."""
    best = run.checkpoints / "best"
    at = ("validate", step_of(best.resolve()) if best.exists() else None)
    lines = [each for each in run.read_metrics() if (each["split"], each["step"]) == at]
    figures = lines[-1] if lines else {}
    return {key: value for key, value in figures.items() if key != "split" and not is_timing(key)}
