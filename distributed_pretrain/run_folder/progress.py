"""How far a pre-training run is, from the files of its run folder alone."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"
TAIL_BYTES = 200_000


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


def read_progress(run_folder: Path) -> RunProgress | None:
    """None where nothing has been trained yet."""
    lines = [each for each in _last_lines(run_folder / METRICS) if each["split"] == "train"]
    if not lines:
        return None
    newest, recent = lines[-1], lines[-20:]
    step = int(newest["step"])
    starts = _last_lines(run_folder / "starts.jsonl")
    total = starts[-1].get("total_steps") if starts else None
    seconds = [line["step_seconds"] for line in recent if "step_seconds" in line]
    rates = [line["pairs_per_second"] for line in recent if "pairs_per_second" in line]
    return RunProgress(
        step=step,
        total_steps=total,
        loss=newest.get("total"),
        pairs_per_second=statistics.median(rates) if rates else None,
        written=(run_folder / METRICS).stat().st_mtime,
        seconds_left=statistics.median(seconds) * (total - step) if seconds and total else None,
    )


def _last_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines at the end of a file of JSON lines, oldest first."""
    try:
        with path.open("rb") as file:
            start = max(0, path.stat().st_size - TAIL_BYTES)
            file.seek(start)
            pieces = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    # Neither what comes before the first line break of a tail, nor a line still being written.
    whole = pieces[1 if start else 0 : -1]
    return [json.loads(each) for each in whole if each]
