"""Learning rates as pure functions of the step."""

from __future__ import annotations

import math

from distributed_pretrain.training.settings import ScheduleConfig


def learning_rate_factor(
    schedule: ScheduleConfig,
    step: int,
    *,
    steps_per_epoch: int,
    total_steps: int,
    reductions: int = 0,
) -> float:
    """The factor in [0, 1] on the peak learning rate for update number `step` (from 0).

    `constant`: 1. `cosine`: from 1 to `final_share` over the run after warm-up.
    `cosine_per_epoch`: (1 + cos(pi * step / steps_per_epoch)) / 2, as LoVT's authors trained:
    down to 0 over one epoch and back up over the next. The paper does not say; it is what
    their scheduler does when it is stepped past its `T_max`. `plateau`: `factor` to the power of
    the `reductions` that validation has asked for so far. Warm-up, rounded to the nearest step,
    rises linearly, and the cosines start after it.
    """
    warmup = schedule.warmup_steps or round(
        schedule.warmup_epochs * steps_per_epoch + schedule.warmup_share * total_steps
    )
    if step < warmup:
        return (step + 1) / (warmup + 1)
    after = step - warmup
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "plateau":
        return float(schedule.factor**reductions)
    if schedule.name == "cosine_per_epoch":
        return 0.5 * (1 + math.cos(math.pi * after / steps_per_epoch))
    span = max(1, total_steps - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, after / span)))
    return schedule.final_share + (1 - schedule.final_share) * cosine
