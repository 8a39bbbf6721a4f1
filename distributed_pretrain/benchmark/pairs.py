"""The pair similarities of LIMITR and GLoRIA beside a loop over reports, in one run.

Everything is forward and backward, from regions and words to their gradients, the local external
loss included. The loop is the authors' algorithm in float32 with all words real. The forms take
turns, and a ratio is one of neighbours in time, so that a slow minute of the machine hits both.
How far a form is from its floor is told by the machine's own rate for large matrix products,
measured in the same turns.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from data_shards.profiles import parse_overrides, validate
from distributed_pretrain.alignment.pairwise.products import (
    bfloat16_even_if_slow,
    cpu_multiplies_bfloat16,
)
from distributed_pretrain.benchmark.memory import in_fresh_processes, peak_bytes_above_start
from distributed_pretrain.benchmark.pair_forms import (
    FORMS,
    Form,
    Method,
    PairBenchmarkConfig,
    Precision,
    Step,
    form_gflops,
    pair_step,
)

TARGET_MEMORY_RATIO = 1 / 8
TARGET_BIG_BATCH_BYTES = 3 * 2**30
TARGET_LOSS_ERROR = 2e-2
TARGET_GRADIENT_ERROR = 5e-2
RATE_MATRIX = 2048
RATE_REPEATS = 4
WARM_UP_BATCH = 2


@dataclass(frozen=True)
class Row:
    """One form: seconds, ratios to the loop and to its floor, one of each for a repetition.

    The errors are relative to the same form in float32; the gradient's is that of the vector.
    """

    form: Form
    seconds: list[float]
    time_ratios: list[float]
    floor_ratios: list[float]
    peak_bytes: int
    loss_error: float
    gradient_error: float

    @property
    def time_ratio(self) -> float:
        """The median of the ratios to the loop's time."""
        return statistics.median(self.time_ratios)


def run(method: Method, overrides: Sequence[str]) -> None:
    """Measure and print a table, verdicts and one line of JSON. Raises InputError for overrides."""
    where = f"benchmark loss --method {method}"
    config = validate(PairBenchmarkConfig, parse_overrides(overrides), where=where)
    print(
        f"{method}: forward + backward, {config.batch_size} images x {config.batch_size} reports, "
        f"{config.regions} regions, {config.words} words, dim {config.dim}, "
        f"{config.threads} threads; median {config.clock} seconds of {config.repeats}"
    )
    if not cpu_multiplies_bfloat16():
        print("  this CPU has no bfloat16 products: of those forms only the roundings are measured")
    rows, rates = measure(method, config)
    for precision, rate in rates.items():
        print(f"  large matrix products in {precision}: {rate:.0f} GFLOP/s")
    print(f"  {'form':32s} {'seconds':>8s}  to loop (spread)      to floor  peak MiB")
    for row in rows:
        ratios = row.time_ratios
        spread = f"{row.time_ratio:6.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        print(
            f"  {row.form.title:32s} {statistics.median(row.seconds):8.3f}  {spread:22s} "
            f"{statistics.median(row.floor_ratios):7.2f} {row.peak_bytes / 2**20:9.0f}"
        )
    big_bytes = {}
    if config.big_batch is not None:
        for form in measurable_forms(method):
            if form.target_time_ratio is not None:
                big_bytes[form.title] = _peak_bytes(method, form, config, config.big_batch)
    print("  peaks are above the inputs, their gradients counted; the floor is the time of the")
    print("  form's matrix products at the machine's rate for large ones")
    for verdict in _verdicts(rows, big_bytes, config):
        print(f"  {verdict}")
    roundings = {form.title: each for form, each in _roundings_of_slow_forms(method, config)}
    for title, (loss_error, gradient_error) in roundings.items():
        for verdict in _error_verdicts(title, loss_error, gradient_error):
            print(f"  {verdict}")
    print(
        json.dumps(
            {
                "method": method,
                "config": config.model_dump(),
                "gflops_per_second": rates,
                "rows": [asdict(row) | {"time_ratio": row.time_ratio} for row in rows],
                "big_batch_peak_bytes": big_bytes,
                "roundings_of_unmeasured_forms": roundings,
            }
        )
    )


def measure(method: Method, config: PairBenchmarkConfig) -> tuple[list[Row], dict[str, float]]:
    """Every form of a method, and the machine's GFLOP/s in either precision."""
    torch.set_num_threads(config.threads)
    clock = time.perf_counter if config.clock == "wall" else time.process_time
    forms = measurable_forms(method)
    steps = {form: pair_step(method, form, config, config.batch_size) for form in forms}
    seconds: dict[Form, list[float]] = {form: [] for form in steps}
    rates: dict[Precision, list[float]] = {form.precision: [] for form in forms}
    losses: dict[Form, float] = {}
    for _ in range(1 + config.repeats):
        for precision, each in rates.items():
            each.append(_gflops_per_second(precision, clock))
        for form, step in steps.items():
            started = clock()
            losses[form] = step.run()
            seconds[form].append(clock() - started)
    # The first turn warms up.
    seconds = {form: each[1:] for form, each in seconds.items()}
    rates = {precision: each[1:] for precision, each in rates.items()}
    rows = []
    for form, own in seconds.items():
        gigaflops = form_gflops(method, form, config)
        exact = _in_float32(form)
        reference = next(each for each in steps if replace(each, target_time_ratio=None) == exact)
        loss_error, gradient_error = _errors(
            losses[form], steps[form], losses[reference], steps[reference]
        )
        rows.append(
            Row(
                form=form,
                seconds=own,
                time_ratios=_ratios(own, seconds[forms[0]]),
                floor_ratios=_ratios(own, [gigaflops / rate for rate in rates[form.precision]]),
                peak_bytes=_peak_bytes(method, form, config, config.batch_size),
                loss_error=loss_error,
                gradient_error=gradient_error,
            )
        )
    return rows, {precision: statistics.median(each) for precision, each in rates.items()}


def measurable_forms(method: Method) -> list[Form]:
    """All forms, the loop first; those in bfloat16 only where they would not run in float32."""
    return [
        form for form in FORMS[method] if form.precision == "float32" or cpu_multiplies_bfloat16()
    ]


def _roundings_of_slow_forms(
    method: Method, config: PairBenchmarkConfig
) -> Iterator[tuple[Form, tuple[float, float]]]:
    """How far forms of which a time would say nothing are from float32: loss and gradient."""
    for form in FORMS[method]:
        if form not in measurable_forms(method):
            step, exact_step = (
                pair_step(method, each, config, config.batch_size)
                for each in (form, _in_float32(form))
            )
            with bfloat16_even_if_slow():
                loss = step.run()
            yield form, _errors(loss, step, exact_step.run(), exact_step)


def _in_float32(form: Form) -> Form:
    return replace(form, precision="float32", target_time_ratio=None)


def _errors(loss: float, step: Step, exact_loss: float, exact_step: Step) -> tuple[float, float]:
    """Of the loss and of the gradient, relative to the exact ones."""
    gradient, exact_gradient = step.gradient(), exact_step.gradient()
    error = (gradient - exact_gradient).norm() / exact_gradient.norm()
    return abs(loss / exact_loss - 1), error.item()


def _gflops_per_second(precision: Precision, clock: Callable[[], float]) -> float:
    factor = torch.ones(RATE_MATRIX, RATE_MATRIX, dtype=getattr(torch, precision))
    # Once unmeasured, as the first product of a shape makes its plan.
    factor @ factor
    started = clock()
    for _ in range(RATE_REPEATS):
        factor @ factor
    return RATE_REPEATS * 2 * RATE_MATRIX**3 / (clock() - started) / 1e9


def _ratios(own: Sequence[float], others: Sequence[float]) -> list[float]:
    return [each / other for each, other in zip(own, others, strict=True)]


def _peak_bytes(method: Method, form: Form, config: PairBenchmarkConfig, batch: int) -> int:
    (peak_bytes,) = in_fresh_processes(_peak_bytes_here, [(method, form, config, batch)])
    return peak_bytes


def _peak_bytes_here(method: Method, form: Form, config: PairBenchmarkConfig, batch: int) -> int:
    """The peak of one form above its inputs, in a process that has done nothing else."""
    torch.set_num_threads(config.threads)
    # The buffers of the libraries are not the form's.
    small = config.model_copy(update={"regions": 4, "words": 4, "dim": 8})
    pair_step(method, form, small, WARM_UP_BATCH).run()
    step = pair_step(method, form, config, batch)
    return peak_bytes_above_start(step.run, torch.device("cpu"))


def _verdicts(
    rows: Sequence[Row], big_bytes: dict[str, int], config: PairBenchmarkConfig
) -> Iterator[str]:
    loop = rows[0]
    for row in rows:
        title, target = row.form.title, row.form.target_time_ratio
        if target is None:
            continue
        yield _verdict(f"{title}: time to loop", row.time_ratio, target)
        memory_ratio = row.peak_bytes / max(1, loop.peak_bytes)
        yield _verdict(f"{title}: memory to loop", memory_ratio, TARGET_MEMORY_RATIO)
        if row.form.precision == "bfloat16":
            yield from _error_verdicts(title, row.loss_error, row.gradient_error)
    for title, peak_bytes in big_bytes.items():
        gibibytes = TARGET_BIG_BATCH_BYTES / 2**30
        name = f"{title}: GiB at batch {config.big_batch}"
        yield _verdict(name, peak_bytes / 2**30, gibibytes)


def _error_verdicts(title: str, loss_error: float, gradient_error: float) -> Iterator[str]:
    yield _verdict(f"{title}: loss off float32 by", loss_error, TARGET_LOSS_ERROR)
    yield _verdict(f"{title}: gradient off float32 by", gradient_error, TARGET_GRADIENT_ERROR)


def _verdict(name: str, value: float, at_most: float) -> str:
    verdict = "reached" if value <= at_most else "MISSED"
    return f"{name:46s} {value:6.3f}, at most {at_most:.3f}: {verdict}"
