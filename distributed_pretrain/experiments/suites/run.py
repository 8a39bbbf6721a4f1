"""`downstream` with a list of tasks: those that are missing are run, and the tables written."""

from __future__ import annotations

import sys

from data_shards.command_line import DONE, FAILED, GOES_ON
from data_shards.files.atomic import write_text_atomically
from distributed_pretrain.experiments.grid.pool import ModuleRun, build_shards, run_all
from distributed_pretrain.experiments.suites.formats import suite_page, table_files
from distributed_pretrain.experiments.suites.settings import SuiteConfig, is_done
from distributed_pretrain.run_folder.task_folder import turn


def run_suite(config: SuiteConfig) -> int:
    """The exit status: 0 when all wanted tasks are done, 1 when one failed, 75 when interrupted.

    Tasks whose figures are there are skipped, others go on where they stopped. The page of tables
    is written in any case, from the figures there are.
    """
    wanted = [config.read(task) for task in config.wanted]
    missing = [each for each in wanted if not is_done(each.config)]
    for built in {each.built.output: each.built for each in missing if each.built}.values():
        build_shards(built.profile, built.output)
    runs = [
        ModuleRun(
            each.task.name,
            each.config.run_folder,
            ("distributed_pretrain", "downstream", str(each.task.profile), *each.words),
            threads=config.threads,
        )
        for each in missing
    ]
    print(
        f"{len(missing)} tasks to run on {config.row} ({len(wanted) - len(missing)} are "
        f"there), in {config.run_folder}",
        file=sys.stderr,
    )
    outcome = run_all(runs, at_once=config.processes)
    page = config.run_folder / "tables.md"
    # Who writes last has read what all others have measured.
    with turn(config.run_folder):
        text = suite_page(config)
        for path, content in {page: text, **table_files(config)}.items():
            write_text_atomically(path, content)
    print(text)
    print(f"written to {page}", file=sys.stderr)
    for line in outcome.failed:
        print(f"failed: {line}", file=sys.stderr)
    if outcome.interrupted:
        return GOES_ON
    return FAILED if outcome.failed else DONE
