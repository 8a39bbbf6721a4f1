"""`python -m distributed_pretrain COMMAND ...`: a thin entry to every command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data_shards.errors import InputError

DESCRIPTION = "Pre-training of chest X-ray encoders from radiology reports."
BENCHMARKS = ("shards", "loader", "step", "loss", "checkpoint", "scaling")
PAIR_METHODS = ("limitr", "gloria")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 2 bad input, 75 interrupted or a rank lost (the command goes on)."""
    options = _parsed(arguments)
    try:
        status: int = options.run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return status


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; overrides may follow an option, which Python 3.11's argparse does not expect."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if unknown := [each for each in rest if each.startswith("-") or "=" not in each]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.overrides += rest
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m distributed_pretrain", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    quickstart = commands.add_parser(
        "quickstart", help="phantom shards, a small LoVT, and what training changed"
    )
    _add_overrides(quickstart)
    quickstart.set_defaults(run=_quickstart)

    pretrain = commands.add_parser("pretrain", help="train a profile, or go on where it stopped")
    pretrain.add_argument("profile", type=Path, help="a YAML file, see configs/pretrain/")
    _add_overrides(pretrain)
    pretrain.set_defaults(run=_pretrain)

    evaluate = commands.add_parser("evaluate", help="retrieval, grounding and linear Dice of a run")
    evaluate.add_argument("run_folder", type=Path, help="a run folder of `pretrain`")
    _add_overrides(evaluate)
    evaluate.set_defaults(run=_evaluate)

    report = commands.add_parser("report", help="train and compare methods, and write a page on it")
    report.add_argument("profile", type=Path, help="a YAML file, see configs/report/")
    _add_overrides(report)
    report.set_defaults(run=_report)

    benchmark = commands.add_parser("benchmark", help="speeds beside their ceilings, in one run")
    benchmark.add_argument("what", choices=BENCHMARKS)
    benchmark.add_argument(
        "--method",
        choices=PAIR_METHODS,
        help="with `loss`: this method's similarities of pairs instead of the global loss",
    )
    _add_overrides(benchmark)
    benchmark.set_defaults(run=_benchmark)
    return parser


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. training.epochs=5")


# Imports stand inside the commands: `--help` and a misspelt command answer at once.
def _quickstart(options: argparse.Namespace) -> int:
    from distributed_pretrain.experiments.quickstart import run_quickstart

    return run_quickstart(options.overrides)


def _pretrain(options: argparse.Namespace) -> int:
    from data_shards.profiles import load_profile
    from distributed_pretrain.pretrain.build import pretrain
    from distributed_pretrain.pretrain.settings import PretrainConfig
    from distributed_pretrain.training.faults.exit_status import PeerError
    from distributed_pretrain.training.faults.interruption import INTERRUPTED_EXIT_STATUS
    from distributed_pretrain.training.faults.skips import NonFiniteError

    config = load_profile(PretrainConfig, options.profile, options.overrides)
    try:
        finished = pretrain(config)
    except NonFiniteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except PeerError as error:
        return error.exit_status
    return 0 if finished else INTERRUPTED_EXIT_STATUS


def _evaluate(options: argparse.Namespace) -> int:
    from distributed_pretrain.evaluation.evaluate import run_evaluate

    return run_evaluate(options.run_folder, options.overrides)


def _report(options: argparse.Namespace) -> int:
    from distributed_pretrain.experiments.compare import run_report

    return run_report(options.profile, options.overrides)


def _benchmark(options: argparse.Namespace) -> int:
    from importlib import import_module

    if options.method is not None:
        if options.what != "loss":
            raise InputError(f"benchmark {options.what}: --method belongs to `benchmark loss`")
        from distributed_pretrain.benchmark import pairs

        pairs.run(options.method, options.overrides)
        return 0
    import_module(f"distributed_pretrain.benchmark.{options.what}").run(options.overrides)
    return 0


if __name__ == "__main__":
    sys.exit(main())
