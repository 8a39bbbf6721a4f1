"""Command line of the shard builder: build, verify and preview a folder of tar shards."""

from __future__ import annotations

import argparse
import errno
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from data_shards.building.build import build_part, build_shards
from data_shards.building.settings import ShardsConfig
from data_shards.checking.preview import draw_preview
from data_shards.checking.verify import Verification, verify_shards
from data_shards.errors import InputError
from data_shards.files.disk_space import NO_SPACE
from data_shards.processes import INTERRUPTS
from data_shards.profiles import load_profile
from data_shards.records.manifest import Manifest
from data_shards.records.study import SPLITS

EXAMPLES = """\
examples:
  python -m data_shards build configs/shards/phantom.yaml output=runs/shards/phantom
  python -m data_shards build configs/shards/mimic_cxr.yaml source.root=/data/mimic workers=16
  python -m data_shards build configs/shards/mimic_cxr.yaml part=3/16
  python -m data_shards verify configs/shards/phantom.yaml
  python -m data_shards preview configs/shards/phantom.yaml --split validate --samples 12

A build that was stopped goes on where it was when the same command is given again.
Parts 1/16 to 16/16 may run side by side on machines that share the output folder: together they
write what a whole build writes, and the last one to be done writes the manifest.
"""


REMEDIES = {
    errno.ENOENT: "check the path; what is missing from a shard folder comes back with `build`",
    errno.ENOTDIR: "check the path",
    errno.EACCES: "let this user read it, and write where files are to go",
    errno.EROFS: "pass another output=...",
    **dict.fromkeys(NO_SPACE, "free some space and give the same command again"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad input (one line on stderr), 130 interrupted."""
    given = _parse(arguments)
    try:
        config = load_profile(ShardsConfig, given.profile, given.overrides)
        if given.command == "build":
            print(_build(config))
        elif given.command == "verify":
            verification = verify_shards(config.output, workers=config.worker_count)
            print(_report(verification, config.output))
            return 2 if verification.problems else 0
        else:
            print(draw_preview(config.output, split=given.split, samples=given.samples))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {_describe_failure(error, given.profile)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "error: interrupted: finished shards are kept and the same command goes on",
            file=sys.stderr,
        )
        return 130
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    given, rest = parser.parse_known_args(arguments)
    # argparse takes no positional after an option: `preview P.yaml --samples 4 output=here`.
    unknown = [each for each in rest if each.startswith("-")]
    if unknown:
        parser.error(f"unknown option {unknown[0]}")
    given.overrides += rest
    return given


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_shards",
        description="Turn a raw archive of radiographs and reports into tar shards.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, does in (
        ("build", "convert the source of the profile into shards, on all cores"),
        ("verify", "check hashes, members, duplicates and splits of finished shards"),
        ("preview", "draw a contact sheet of finished shards"),
    ):
        command = commands.add_parser(name, help=does, description=does)
        command.add_argument("profile", type=Path, metavar="PROFILE.yaml")
        command.add_argument(
            "overrides",
            nargs="*",
            metavar="key=value",
            help="changes to the profile, dotted for nested keys: source.root=/data",
        )
        if name == "preview":
            command.add_argument("--split", choices=SPLITS, default="train")
            command.add_argument("--samples", type=_positive, default=12, help="default 12")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _build(config: ShardsConfig) -> str:
    if config.part is None:
        return _describe(build_shards(config), config.output)
    built = build_part(config)
    if built.manifest is None:
        return (
            f"part {config.part} done: {built.missing:,} of {built.planned:,} shards are still to "
            "be written by other parts; the last one writes the manifest"
        )
    return _describe(built.manifest, config.output)


def _describe(manifest: Manifest, folder: Path) -> str:
    lines = [f"{'split':<10}{'shards':>8}{'studies':>10}{'patients':>10}  images"]
    for split in SPLITS:
        shards = sum(shard.split == split for shard in manifest.shards)
        views = manifest.images_by_split_and_view[split]
        images = ", ".join(f"{count:,} {view}" for view, count in views.items()) or "-"
        lines.append(
            f"{split:<10}{shards:>8,}{manifest.samples_by_split[split]:>10,}"
            f"{manifest.patients_by_split[split]:>10,}  {images}"
        )
    for reason, count in manifest.dropped_by_reason.items():
        lines.append(f"dropped: {count:,} x {reason}")
    return "\n".join([*lines, f"shards: {folder}"])


def _describe_failure(error: OSError, profile: Path) -> str:
    """Which file, why, and what to do; a failed write does not know its file."""
    where = error.filename or f"what {profile} names"
    remedy = REMEDIES.get(error.errno or 0, "check the disk and the path")
    return f"{where}: {error.strerror or error}: {remedy}"


def _report(verification: Verification, folder: Path) -> str:
    lines = [
        f"{verification.shards:,} shards, {verification.samples:,} samples, "
        f"{verification.images:,} images in {folder}"
    ]
    lines += [f"warning: {each}" for each in verification.warnings]
    lines += [f"problem: {each}" for each in verification.problems]
    if verification.problems:
        lines.append(f"{len(verification.problems)} problems: delete what is damaged, build again")
    else:
        lines.append("everything is as the manifest says")
    return "\n".join(lines)


def _interrupt(*_: object) -> None:
    # Slurm says it twice: the second must not disturb the cleaning up.
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    # `kill` and Slurm ask with SIGTERM, Slurm near the time limit with SIGUSR2: as for Ctrl-C.
    for number in INTERRUPTS:
        signal.signal(number, _interrupt)
    sys.exit(main())
