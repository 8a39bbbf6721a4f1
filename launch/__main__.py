"""`python -m launch COMMAND ...`: commands of the project as jobs of a cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data_shards.command_line import add_overrides, guarded, new_parser, parse
from data_shards.errors import InputError

EXAMPLES = """\
examples:
  python -m launch submit configs/cluster/slurm_2x8_a100.yaml -- \\
      pretrain configs/pretrain/lovt_2x8.yaml
  python -m launch submit configs/cluster/slurm_cpu.yaml executor=local -- \\
      pretrain configs/pretrain/phantom_lovt.yaml seed=1
  python -m launch sweep configs/cluster/slurm_1_gpu.yaml --folder runs/seeds -- \\
      pretrain configs/pretrain/lovt_small.yaml,configs/pretrain/phantom_clip.yaml seed=1,2,3
  python -m launch status runs/lovt_2x8
  python -m launch logs -f runs/lovt_2x8
  python -m launch cancel runs/lovt_2x8
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 when something that was waited for failed, 2 bad input."""
    options = parsed(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: int(options.run(options)))


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; `words` is what follows the first --, a command of the project."""
    given = list(arguments)
    cut = given.index("--") if "--" in given else len(given)
    options = parse(_parser(), given[:cut])
    options.words = given[cut + 1 :]
    return options


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "launch",
        description="Commands of the project as jobs of a Slurm cluster, or of this machine.",
        epilog=EXAMPLES,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    submit = commands.add_parser("submit", help="queue a command: CLUSTER.yaml [key=value] -- ...")
    _add_cluster(submit)
    submit.add_argument("--dry-run", action="store_true", help="print the script, queue nothing")
    submit.set_defaults(run=_submit)
    sweep = commands.add_parser("sweep", help="every combination of what a command leaves open")
    _add_cluster(sweep)
    sweep.add_argument("--folder", type=Path, required=True, help="what its tasks are to be in")
    sweep.add_argument("--points", type=Path, help="a CSV or YAML of overrides, a task a row")
    sweep.add_argument(
        "--dry-run", action="store_true", help="print script and tasks, queue nothing"
    )
    sweep.add_argument("--parts", type=int, metavar="N", help="for part={i}/{n}")
    sweep.set_defaults(run=_sweep)
    results = commands.add_parser("results", help="the figures of a sweep, in one table")
    results.add_argument("folder", type=Path, metavar="SWEEP_FOLDER")
    results.add_argument("--output", type=Path, help=".csv or .parquet (results.csv beside it)")
    results.set_defaults(run=_results)
    status = commands.add_parser("status", help="how the jobs of run folders are")
    status.add_argument("folders", nargs="+", type=Path, metavar="RUN_FOLDER")
    status.set_defaults(run=_status)
    logs = commands.add_parser("logs", help="what a job says")
    logs.add_argument("folder", type=Path, metavar="RUN_FOLDER")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    logs.add_argument("--rank", default="0", help="a number, or `all` (default 0)")
    logs.set_defaults(run=_logs)
    cancel = commands.add_parser(
        "cancel", help="end the jobs about these folders and those within; pre-training saves first"
    )
    cancel.add_argument("folders", nargs="+", type=Path, metavar="RUN_FOLDER")
    cancel.set_defaults(run=_cancel)
    return parser


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cluster", type=Path, metavar="CLUSTER.yaml", help="see configs/cluster/")
    add_overrides(parser)


# Imports stand inside the commands: each brings in only what it needs.
def _submit(options: argparse.Namespace) -> int:
    from data_shards.profiles import load_profile
    from launch.invocation import read_invocation
    from launch.settings import ClusterConfig
    from launch.submit import dry_run, submit

    cluster = load_profile(ClusterConfig, options.cluster, options.overrides)
    invocation = read_invocation(options.words)
    if options.dry_run:
        print(dry_run(cluster, invocation))
        return 0
    number = submit(cluster, invocation)
    if cluster.executor != "debug":
        print(f"job {number}: {invocation.command.name} into {invocation.folder}")
        print(f"watch: python -m launch logs -f {invocation.folder}")
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from data_shards.profiles import load_profile
    from distributed_pretrain.experiments.points import read_points, read_rows
    from launch.settings import ClusterConfig
    from launch.sweep import describe, dry_run_sweep, states_of_points, sweep

    cluster = load_profile(ClusterConfig, options.cluster, options.overrides)
    if options.parts is not None and options.parts < 1:
        raise InputError(f"--parts {options.parts}: at least 1")
    rows = read_rows(options.points) if options.points is not None else []
    points = read_points(options.words, rows=rows, parts=options.parts)
    if options.dry_run:
        print(dry_run_sweep(cluster, points, options.folder))
        return 0
    numbers = sweep(cluster, points, options.folder)
    print(f"{len(numbers)} submitted; {describe(options.folder, points)}")
    print(f"watch: python -m launch status {options.folder}")
    print(f"figures: python -m launch results {options.folder}")
    ended_badly = any(state == "failed" for _, state in states_of_points(options.folder, points))
    return 1 if cluster.executor != "slurm" and ended_badly else 0


def _results(options: argparse.Namespace) -> int:
    from launch.results import collect, results_table, write_results
    from launch.sweep import read_sweep

    rows = collect(options.folder)
    values = dict.fromkeys(key for point in read_sweep(options.folder) for key in point.values)
    path = options.output or options.folder / "results.csv"
    write_results(rows, path)
    print(results_table(rows, values=list(values)))
    print(f"written to {path}", file=sys.stderr)
    return 0


def _status(options: argparse.Namespace) -> int:
    from launch.status import status

    print(status(options.folders))
    return 0


def _logs(options: argparse.Namespace) -> int:
    from launch.logs import show_logs

    if options.rank != "all" and not options.rank.isdecimal():
        raise InputError(f"--rank {options.rank}: a number, or all")
    rank = None if options.rank == "all" else int(options.rank)
    last = show_logs(options.folder, rank=rank, follow=options.follow)
    if last is None:
        return 0
    print(f"the job is {last.state}" + (f": {last.line}" if last.line else ""), file=sys.stderr)
    return 1 if last.state in ("failed", "unknown") else 0


def _cancel(options: argparse.Namespace) -> int:
    from launch.cancel import cancel

    numbers = cancel(options.folders)
    print(f"told to end: {', '.join(numbers)}" if numbers else "no job was waiting or running")
    return 0


if __name__ == "__main__":
    sys.exit(main())
