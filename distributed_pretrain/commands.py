"""The commands of `python -m distributed_pretrain`: the one place that lists them."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path

from data_shards.command_line import DONE, Command
from data_shards.profiles import Config, keys_of, load_profile, parse_overrides, validate
from distributed_pretrain.downstream import settings as downstream
from distributed_pretrain.evaluation import settings as evaluation
from distributed_pretrain.experiments import settings as experiments
from distributed_pretrain.experiments.suites import settings as suites
from distributed_pretrain.handover import settings as handover
from distributed_pretrain.pretrain import settings as pretrain

# Each a file in `benchmark/` with its `Settings`, and `run`, which measures and prints.
BENCHMARKS = (
    "shards",
    "opening",
    "loader",
    "step",
    "loss",
    "pairs",
    "regions",
    "checkpoint",
    "scaling",
    "downstream",
    "gpu",
)


# Imports stand inside the commands: `--help` and a launcher that only asks answer at once.
def _quickstart(overrides: Sequence[str]) -> int:
    from distributed_pretrain.experiments.quickstart import run_quickstart

    return run_quickstart(overrides)


def _pretrain(profile: Path, overrides: Sequence[str]) -> int:
    from distributed_pretrain.pretrain.build import run_pretrain

    return run_pretrain(profile, overrides)


def _evaluate(run_folder: Path, overrides: Sequence[str]) -> int:
    from distributed_pretrain.evaluation.evaluate import run_evaluate

    return run_evaluate(run_folder, overrides)


def _downstream(profile: Path, overrides: Sequence[str]) -> int:
    if _downstream_settings(keys_of(profile)) is suites.SuiteConfig:
        from distributed_pretrain.experiments.suites.run import run_suite

        return run_suite(load_profile(suites.SuiteConfig, profile, overrides))
    from distributed_pretrain.downstream.run import run_downstream

    return run_downstream(profile, overrides)


def _downstream_settings(keys: Collection[str]) -> type[Config]:
    """A list of `tasks` is run as such."""
    return suites.SuiteConfig if "tasks" in keys else downstream.DownstreamConfig


def _compare(profile: Path, overrides: Sequence[str]) -> int:
    from distributed_pretrain.experiments.compare import run_compare

    return run_compare(profile, overrides)


def _memory(profile: Path, overrides: Sequence[str], *, ranks: int) -> int:
    from distributed_pretrain.pretrain.memory import run_memory

    return run_memory(profile, overrides, ranks=ranks)


def _add_ranks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ranks", type=_count, default=1, help="GPUs that share the batch (1)")


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is no whole number from 1 on")
    return int(word)


def _export(run_folder: Path, overrides: Sequence[str], *, to: str) -> int:
    from distributed_pretrain.handover.export import run_export

    return run_export(run_folder, overrides, to=to)


def _add_formats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", choices=handover.FORMATS, required=True, help="whose loader it is")


def _serve(run_folder: Path, overrides: Sequence[str]) -> int:
    from distributed_pretrain.handover.serve import run_serve

    return run_serve(run_folder, overrides)


def _doctor(arguments: Sequence[str]) -> int:
    from distributed_pretrain.handover.doctor import run_doctor

    return run_doctor(arguments)


def _benchmark(overrides: Sequence[str], *, what: str) -> int:
    module = import_module(f"{__package__}.benchmark.{what}")
    module.run(validate(module.Settings, parse_overrides(overrides), where=f"benchmark {what}"))
    return DONE


def _add_benchmarks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=BENCHMARKS)


COMMANDS = (
    Command(
        "quickstart",
        help="phantom shards, a small LoVT, and what training changed",
        subject=None,
        settings=experiments.QuickstartConfig,
        own_overrides="undotted",
        folder="output",
        goes_on_by="tasks",
        run=_quickstart,
    ),
    Command(
        "pretrain",
        help="train a profile, or go on where it stopped",
        settings=pretrain.PretrainConfig,
        folder="run_folder",
        goes_on_by="steps",
        ranks="any",
        check=pretrain.refuse_what_cannot_start,
        figures=pretrain.figures_of_run,
        run=_pretrain,
    ),
    Command(
        "evaluate",
        help="retrieval, grounding, linear Dice and AUROC of a run",
        subject="run_folder",
        settings=evaluation.EvaluateConfig,
        ranks="any",
        check=evaluation.refuse_what_cannot_start,
        figures=evaluation.figures_of_evaluation,
        run=_evaluate,
    ),
    Command(
        "downstream",
        help="train a head on an encoder, and judge it; or a list of such tasks",
        settings=downstream.DownstreamConfig,
        settings_of=_downstream_settings,
        folder="run_folder",
        goes_on_by="steps",
        ranks="any",
        check=suites.refuse_what_cannot_start,
        figures=suites.figures,
        run=_downstream,
    ),
    Command(
        "compare",
        help="train and compare methods, and write a page on it",
        settings=experiments.ComparisonConfig,
        own_overrides="undotted",
        folder="output",
        goes_on_by="tasks",
        check=experiments.refuse_what_cannot_start,
        run=_compare,
    ),
    Command(
        "memory",
        help="what a profile needs of a GPU's memory, told on any machine",
        settings=pretrain.PretrainConfig,
        run=_memory,
        add_arguments=_add_ranks,
    ),
    Command(
        "export",
        help="a run's encoder or whole model, for others' code",
        subject="run_folder",
        settings=handover.ExportConfig,
        check=handover.refuse_what_cannot_start,
        run=_export,
        add_arguments=_add_formats,
    ),
    Command(
        "serve",
        help="a run's model behind a page: an X-ray and a phrase in, a heat map and reports out",
        subject="run_folder",
        settings=handover.ServeConfig,
        check=handover.refuse_what_cannot_start,
        run=_serve,
    ),
    Command(
        "doctor",
        help="this machine, and with PROFILE.yaml a profile's needs, before a long job",
        subject=None,
        run=_doctor,
    ),
    Command(
        "benchmark",
        help="speeds beside their ceilings, in one run",
        subject=None,
        run=_benchmark,
        add_arguments=_add_benchmarks,
    ),
)
