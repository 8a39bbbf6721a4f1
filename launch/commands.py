"""The commands of `python -m launch`: what they take, and what they print."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from data_shards.command_line import (
    DONE,
    FAILED,
    add_overrides,
    guarded,
    new_parser,
    parse,
    shell_line,
)
from data_shards.errors import InputError
from data_shards.profiles import load_profile
from distributed_pretrain.experiments.grid.points import read_points, read_rows
from distributed_pretrain.experiments.tables import runs_table, text_table, write_rows
from launch.invocation import read_invocation, said_commands
from launch.settings import ClusterConfig
from launch.slurm import EXECUTORS
from launch.states import show_logs, status
from launch.submit import cancel, dry_run, submit
from launch.sweep import collect, describe, dry_run_sweep, read_sweep, states_of_points, sweep

EXAMPLES = """\
  python -m launch submit configs/cluster/slurm_2x8_a100.yaml -- {first}
  python -m launch submit configs/cluster/slurm_cpu.yaml executor=local -- {first} seed=1
  python -m launch sweep configs/cluster/slurm_1_gpu.yaml --folder runs/seeds -- {first} seed=1,2,3
  python -m launch status runs/seeds
  python -m launch results runs/seeds
  python -m launch logs -f runs/lovt_2x8
  python -m launch cancel runs/lovt_2x8"""


def run(arguments: Sequence[str]) -> int:
    """The exit status of a command line."""
    options = parsed(arguments)
    return guarded(lambda: int(options.run(options)))


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; `words` is what follows the first --, a command of the project."""
    given = list(arguments)
    cut = given.index("--") if "--" in given else len(given)
    options = parse(_parser(), given[:cut])
    options.words = given[cut + 1 :]
    return options


def epilog() -> str:
    """What can be submitted, and commands to begin with, of the first of these."""
    said = said_commands()
    table = text_table([[f"  {words}", what] for words, what in said])
    return f"after the --:\n{table}\n\nexamples:\n{EXAMPLES.format(first=said[0][0])}\n"


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "launch",
        description="Commands of the project as jobs of a Slurm cluster, or of this machine.",
        epilog=epilog(),
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str, run: Callable[[argparse.Namespace], int], what: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=what, description=what)
        command.set_defaults(run=run)
        return command

    submitting = add("submit", _submit, "queue a command: CLUSTER.yaml [key=value] -- ...")
    sweeping = add("sweep", _sweep, "every combination of what a command leaves open")
    for queuing in (submitting, sweeping):
        queuing.add_argument("cluster", type=Path, metavar="CLUSTER.yaml", help="configs/cluster/")
        add_overrides(queuing)
        queuing.add_argument("--dry-run", action="store_true", help="print it all, queue nothing")
    sweeping.add_argument("--folder", type=Path, required=True, help="what its tasks are to be in")
    sweeping.add_argument("--points", type=Path, help="a CSV or YAML of overrides, a task a row")
    sweeping.add_argument("--parts", type=int, metavar="N", help="for part={i}/{n}")
    told = "a sweep's figures in one table, over seeds as mean ± 95%% interval"
    results = add("results", _results, told)
    results.add_argument("folder", type=Path, metavar="SWEEP_FOLDER")
    results.add_argument("--output", type=Path, help=".csv or .parquet (results.csv beside it)")
    logs = add("logs", _logs, "what a job says")
    logs.add_argument("folder", type=Path, metavar="RUN_FOLDER")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    logs.add_argument("--rank", default="0", help="a number, or `all` (default 0)")
    looking = add("status", _status, "how the jobs of run folders are")
    told = "end the jobs about these folders and those within; training saves first"
    ending = add("cancel", _cancel, told)
    for about in (looking, ending):
        about.add_argument("folders", nargs="+", type=Path, metavar="RUN_FOLDER")
    return parser


def _submit(options: argparse.Namespace) -> int:
    cluster = load_profile(ClusterConfig, options.cluster, options.overrides)
    invocation = read_invocation(options.words)
    if options.dry_run:
        print(dry_run(cluster, invocation))
        return DONE
    number = submit(cluster, invocation)
    if EXECUTORS[cluster.executor].in_background:
        print(f"job {number}: {invocation.command.name} into {invocation.folder}")
        print("watch:", shell_line("python", "-m", "launch", "logs", "-f", invocation.folder))
    return DONE


def _sweep(options: argparse.Namespace) -> int:
    cluster = load_profile(ClusterConfig, options.cluster, options.overrides)
    if options.parts is not None and options.parts < 1:
        raise InputError(f"--parts {options.parts}: at least 1")
    rows = read_rows(options.points) if options.points is not None else []
    points = read_points(options.words, rows=rows, parts=options.parts)
    if options.dry_run:
        print(dry_run_sweep(cluster, points, options.folder))
        return DONE
    submitted = sweep(cluster, points, options.folder)
    print(f"{submitted} submitted; {describe(options.folder, points)}")
    print("watch:", shell_line("python", "-m", "launch", "status", options.folder))
    print("figures:", shell_line("python", "-m", "launch", "results", options.folder))
    have_ended = not EXECUTORS[cluster.executor].has_queue
    failed = "failed" in states_of_points(options.folder, points)
    return FAILED if have_ended and failed else DONE


def _results(options: argparse.Namespace) -> int:
    rows, troubles = collect(options.folder)
    values = dict.fromkeys(key for point in read_sweep(options.folder) for key in point.values)
    path = options.output or options.folder / "results.csv"
    write_rows(rows, path)
    print(runs_table(rows, values=list(values)))
    for line in (*troubles, f"written to {path}"):
        print(line, file=sys.stderr)
    return FAILED if troubles else DONE


def _status(options: argparse.Namespace) -> int:
    print(status(options.folders))
    return DONE


def _logs(options: argparse.Namespace) -> int:
    if options.rank != "all" and not options.rank.isdecimal():
        raise InputError(f"--rank {options.rank}: a number, or all")
    rank = None if options.rank == "all" else int(options.rank)
    last = show_logs(options.folder, rank=rank, follow=options.follow)
    if last is None:
        return DONE
    print(f"the job is {last.state}" + (f": {last.line}" if last.line else ""), file=sys.stderr)
    return FAILED if last.state in ("failed", "unknown") else DONE


def _cancel(options: argparse.Namespace) -> int:
    numbers = cancel(options.folders)
    print(f"told to end: {', '.join(numbers)}" if numbers else "no job was waiting or running")
    return DONE
