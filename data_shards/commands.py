"""The commands of `python -m data_shards`: the one place that lists them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from data_shards.building.settings import ShardsConfig, refuse_what_cannot_start
from data_shards.command_line import BAD_INPUT, DONE, Command
from data_shards.profiles import load_profile
from data_shards.records.manifest import read_manifest
from data_shards.records.study import SPLITS, Split


# Imports stand inside the commands: `--help` and a launcher that only asks answer at once.
def _build(profile: Path, overrides: Sequence[str]) -> int:
    from data_shards.building.build import build

    print(build(load_profile(ShardsConfig, profile, overrides)))
    return DONE


def _verify(profile: Path, overrides: Sequence[str]) -> int:
    from data_shards.checking.verify import verify_shards

    config = load_profile(ShardsConfig, profile, overrides)
    verification = verify_shards(config.output, workers=config.worker_count)
    print(verification.told(config.output))
    return BAD_INPUT if verification.problems else DONE


def _refuse_no_shards(_: ShardsConfig, folder: Path, ranks: int) -> None:
    del ranks
    read_manifest(folder)


def _preview(
    profile: Path, overrides: Sequence[str], *, split: Split, samples: int, sheet: Path | None
) -> int:
    from data_shards.checking.preview import draw_preview

    config = load_profile(ShardsConfig, profile, overrides)
    print(draw_preview(config.output, split=split, samples=samples, sheet=sheet))
    return DONE


def _add_preview_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--samples", type=_at_least_one, default=12, help="default 12")
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE.png",
        help="where the sheet goes, as for shards that are read-only (default: beside the shards)",
    )


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a number from 1 on is needed")
    return int(text)


_about_shards = partial(Command, settings=ShardsConfig, folder="output")

COMMANDS = (
    _about_shards(
        "build",
        help="convert the source of the profile into shards, on all cores",
        goes_on_by="tasks",
        check=refuse_what_cannot_start,
        run=_build,
    ),
    _about_shards(
        "verify",
        help="check hashes, members, duplicates and splits of finished shards",
        check=_refuse_no_shards,
        run=_verify,
    ),
    _about_shards(
        "preview",
        help="draw a contact sheet of finished shards",
        run=_preview,
        add_arguments=_add_preview_arguments,
    ),
)
