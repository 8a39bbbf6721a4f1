"""The commands of `python -m data_shards`: the one place that lists them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from data_shards.building.settings import ShardsConfig, refuse_what_cannot_start
from data_shards.checking.settings import FinishedShardsConfig, StoreConfig
from data_shards.command_line import BAD_INPUT, DONE, Command
from data_shards.errors import InputError
from data_shards.processes import available_cores
from data_shards.profiles import load_profile, parse_overrides, validate
from data_shards.records.manifest import read_manifest
from data_shards.records.study import SPLITS, Split
from data_shards.remote.address import Address
from data_shards.remote.shards import ShardFiles, shard_files

_SHARDS = "a finished shard folder, or its address in a store"


# Imports stand inside the commands: `--help` and a launcher that only asks answer at once.
def _build(profile: Path, overrides: Sequence[str], *, dry_run: bool = False) -> int:
    if dry_run:
        return _inspect(profile, overrides)
    from data_shards.building.build import build

    print(build(load_profile(ShardsConfig, profile, overrides)))
    return DONE


def _add_build_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="write nothing: the same as inspect")


def _verify(profile: Path, overrides: Sequence[str]) -> int:
    from data_shards.checking.verify import verify_shards

    config = load_profile(FinishedShardsConfig, profile, overrides)
    files = config.files()
    verification = verify_shards(files, workers=config.worker_count)
    print(verification.told(files))
    return BAD_INPUT if verification.problems else DONE


def _inspect(profile: Path, overrides: Sequence[str]) -> int:
    from data_shards.building.inspect import inspect_source

    print(inspect_source(load_profile(ShardsConfig, profile, overrides)))
    return DONE


def _overlap(
    overrides: Sequence[str],
    *,
    one: Address | Path,
    other: Address | Path,
    mapping: Path | None,
    key: Path | None,
    near_bits: int,
    save: Path | None,
) -> int:
    from data_shards.checking.overlap import report_overlap

    workers = available_cores()
    told = report_overlap(
        _files("overlap", one, overrides),
        _files("overlap", other, overrides),
        mapping=mapping,
        key=key,
        near_bits=near_bits,
        save=save,
        workers=workers,
    )
    print(told)
    return DONE


def _add_overlap_arguments(parser: argparse.ArgumentParser) -> None:
    _add_shards(parser, "one", help=_SHARDS)
    _add_shards(parser, "other", help="others")
    parser.add_argument(
        "--mapping",
        type=Path,
        metavar="FILE",
        help="ids of the second by those of the first: a table of columns a and b, or RSNA's JSON",
    )
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="the hash_ids of both, for ids of the mapping"
    )
    parser.add_argument(
        "--near-bits",
        type=_at_least_one,
        default=16,
        help="bits of 256 that near-duplicates may differ in, default 16",
    )
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="where all of it goes")


def _text_report(
    overrides: Sequence[str],
    *,
    shards: Address | Path,
    tokenizer: Path | None,
    max_tokens: int,
    examples: int,
) -> int:
    from data_shards.checking.text_report import report_texts

    files = _files("text-report", shards, overrides)
    print(report_texts(files, tokenizer=tokenizer, max_tokens=max_tokens, examples=examples))
    return DONE


def _add_text_report_arguments(parser: argparse.ArgumentParser) -> None:
    _add_shards(parser, "shards", help=_SHARDS)
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="tokenizer.json of the report encoder, or its folder; without it words are counted",
    )
    parser.add_argument("--max-tokens", type=_at_least_one, default=512, help="default 512")
    parser.add_argument("--examples", type=_at_least_one, default=3, help="default 3")


def _beton(overrides: Sequence[str], *, shards: Address | Path) -> int:
    if overrides:
        raise InputError(f"beton reads no profile, so that {overrides[0]} means nothing to it")
    if isinstance(shards, Address):
        raise InputError(
            f"{shards}: a beton is written beside its tars: copy the shards to a folder first"
        )
    try:
        from data_shards.beton.write import write_betons
    except ImportError as error:
        raise InputError(
            f"beton needs the extra `ffcv` ({error}): install it as pyproject.toml says"
        ) from error
    print(write_betons(shards))
    return DONE


def _add_beton_arguments(parser: argparse.ArgumentParser) -> None:
    _add_shards(parser, "shards", help="a finished shard folder")


def _add_shards(parser: argparse.ArgumentParser, name: str, *, help: str) -> None:
    parser.add_argument(name, type=_folder_or_address, metavar="SHARDS", help=help)


def _folder_or_address(text: str) -> Address | Path:
    try:
        return Address(text) if "://" in text else Path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _files(verb: str, shards: Address | Path, overrides: Sequence[str]) -> ShardFiles:
    config = validate(StoreConfig, parse_overrides(overrides), where=verb)
    return shard_files(shards, config.data.cache)


def _refuse_no_shards(config: FinishedShardsConfig, folder: Path, ranks: int) -> None:
    del folder, ranks
    read_manifest(config.files().manifest_folder())


def _preview(
    profile: Path, overrides: Sequence[str], *, split: Split, samples: int, sheet: Path | None
) -> int:
    from data_shards.checking.preview import draw_preview

    config = load_profile(FinishedShardsConfig, profile, overrides)
    print(draw_preview(config.files(), split=split, samples=samples, sheet=sheet))
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
_about_finished_shards = partial(_about_shards, settings=FinishedShardsConfig)

COMMANDS = (
    _about_shards(
        "build",
        help="convert the source of the profile into shards, on all cores",
        goes_on_by="tasks",
        check=refuse_what_cannot_start,
        run=_build,
        add_arguments=_add_build_arguments,
    ),
    _about_shards(
        "inspect",
        help="tell what a build would find, miss, take and write, before it starts",
        check=refuse_what_cannot_start,
        run=_inspect,
    ),
    _about_finished_shards(
        "verify",
        help="check hashes, members, duplicates and splits of finished shards",
        check=_refuse_no_shards,
        run=_verify,
    ),
    _about_finished_shards(
        "preview",
        help="draw a contact sheet of finished shards",
        run=_preview,
        add_arguments=_add_preview_arguments,
    ),
    Command(
        "overlap",
        help="patients, images and near-duplicates that two shard folders share",
        subject=None,
        run=_overlap,
        add_arguments=_add_overlap_arguments,
    ),
    Command(
        "text-report",
        help="what reading made of the reports of finished shards, and why",
        subject=None,
        run=_text_report,
        add_arguments=_add_text_report_arguments,
    ),
    Command(
        "beton",
        help="write FFCV's files beside the tars of finished shards, for data.reader=ffcv",
        subject=None,
        run=_beton,
        add_arguments=_add_beton_arguments,
    ),
)
