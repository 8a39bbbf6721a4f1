"""The pair similarities of LIMITR and GLoRIA beside a loop over reports, in one run.

Everything is forward and backward, from regions and words to their gradients, the local external
loss included. The loop is the authors' algorithm in float32 with all words real. How far a form is
from its floor is told by the machine's own rate for large matrix products, measured in the same
turns.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch

from distributed_pretrain.alignment.pairwise.products import (
    bfloat16_even_if_slow,
    cpu_multiplies_bfloat16,
)
from distributed_pretrain.benchmark import harness
from distributed_pretrain.benchmark.pair_forms import (
    FORMS,
    Form,
    PairBenchmarkConfig,
    Precision,
    Step,
    form_gflops,
    pair_step,
)

TARGET_MEMORY_RATIO = 1 / 8
TARGET_BIG_BATCH_GIB = 3
TARGET_LOSS_ERROR = 2e-2
TARGET_GRADIENT_ERROR = 5e-2
RATE_MATRIX = 2048
RATE_REPEATS = 4
WARM_UP_BATCH = 2


def run(overrides: Sequence[str]) -> None:
    """Measure and print. Raises InputError for a bad override."""
    config = harness.read_settings(PairBenchmarkConfig, overrides, verb="pairs")
    print(
        f"{config.method}: forward + backward, {config.batch_size} images x {config.batch_size} "
        f"reports, {config.regions} regions, {config.words} words, dim {config.dim}, "
        f"{config.threads} threads; median {config.clock} seconds of {config.repeats}\n"
        "  peaks are above the inputs, their gradients counted; the floor is the time of the\n"
        "  form's matrix products at the machine's rate for large ones"
    )
    if not cpu_multiplies_bfloat16():
        print("  this CPU has no bfloat16 products: of those forms only the roundings are measured")
    steps, turns = measure(config)
    rates = {key: statistics.median(each) for key, each in turns.items() if isinstance(key, str)}
    for precision, rate in rates.items():
        print(f"  large matrix products in {precision}: {rate:.0f} GFLOP/s")
    columns = {"form": "<32", "seconds": ">8.3f", "to loop (spread)": "<24"}
    table = harness.Table(columns | {"to floor": ">8.2f", "peak MiB": ">9.1f"})
    targets = []
    loop, *_ = steps
    loop_peak = _peak_mib(loop, config, config.batch_size)
    for form, step in steps.items():
        asked: dict[str, tuple[float, float]] = {}
        if form in turns:
            seconds, gigaflops = turns[form], form_gflops(form, config)
            to_loop = harness.Ratios.of(seconds, turns[loop])
            floors = [gigaflops / rate for rate in turns[form.precision]]
            to_floor = harness.Ratios.of(seconds, floors).median
            peak = loop_peak if form == loop else _peak_mib(form, config, config.batch_size)
            table.row(form.title, statistics.median(seconds), to_loop, to_floor, peak)
            if form.target_time_ratio is not None:
                asked["time to loop"] = to_loop.median, form.target_time_ratio
                asked["memory to loop"] = peak / max(loop_peak, 1e-6), TARGET_MEMORY_RATIO
                if config.big_batch is not None:
                    peak = _peak_mib(form, config, config.big_batch) / 1024
                    asked[f"GiB at batch {config.big_batch}"] = peak, TARGET_BIG_BATCH_GIB
        if form.precision == "bfloat16":
            loss_error, gradient_error = step.errors(steps[form.in_float32])
            asked["loss off float32 by"] = loss_error, TARGET_LOSS_ERROR
            asked["gradient off float32 by"] = gradient_error, TARGET_GRADIENT_ERROR
        targets += [harness.Target(f"{form.title}: {name}", *each) for name, each in asked.items()]
    figures = {"config": config.model_dump(), "gflops_per_second": rates, "rows": table.rows}
    harness.conclude(targets, figures)


def measure(
    config: PairBenchmarkConfig,
) -> tuple[dict[Form, Step], dict[Form | Precision, list[float]]]:
    """All forms, the loop first and each run at least once; seconds, and GFLOP/s by precision.

    Of bfloat16 on a CPU where it is slow a time would say nothing: only its roundings are seen.
    """
    torch.set_num_threads(config.threads)
    steps = {form: pair_step(form, config, config.batch_size) for form in FORMS[config.method]}
    timed = [each for each in steps if each.precision == "float32" or cpu_multiplies_bfloat16()]
    measures: dict[Form | Precision, Callable[[], float]] = {
        form.precision: partial(_gflops_per_second, form.precision, config.clock) for form in timed
    }
    for form in timed:
        measures[form] = partial(harness.seconds_of, steps[form].run, clock=config.clock)
    turns = harness.take_turns(measures, turns=config.repeats)
    for form, step in steps.items():
        if form not in turns:
            with bfloat16_even_if_slow():
                step.run()
    return steps, turns


def _gflops_per_second(precision: Precision, clock: harness.Clock) -> float:
    factor = torch.ones(RATE_MATRIX, RATE_MATRIX, dtype=getattr(torch, precision))
    # Once unmeasured, as the first product of a shape makes its plan.
    factor @ factor

    def multiply() -> None:
        for _ in range(RATE_REPEATS):
            factor @ factor

    return RATE_REPEATS * 2 * RATE_MATRIX**3 / harness.seconds_of(multiply, clock=clock) / 1e9


def _peak_mib(form: Form, config: PairBenchmarkConfig, batch: int) -> float:
    arguments = [(form, config, batch)]
    (peak,) = harness.in_fresh_processes(_peak_bytes, arguments, threads=config.threads)
    return peak / 2**20


def _peak_bytes(form: Form, config: PairBenchmarkConfig, batch: int) -> int:
    """The peak of one form above its inputs."""
    # The buffers of the libraries are not the form's.
    small = config.model_copy(update={"regions": 4, "words": 4, "dim": 8})
    pair_step(form, small, WARM_UP_BATCH).run()
    step = pair_step(form, config, batch)
    return harness.peak_bytes_above_start(step.run, harness.CPU)
