"""Command lines of all three packages: commands, overrides, one-line errors, exit statuses."""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from data_shards.errors import InputError, RunError
from data_shards.files.atomic import NO_SPACE, remedy_of
from data_shards.profiles import Config, keys_of, load_profile, parse_overrides, validate
from data_shards.starting import GOES_ON as GOES_ON
from data_shards.starting import INTERRUPTED as INTERRUPTED
from data_shards.starting import INTERRUPTED_LINE, launcher_number, say_once

DONE, FAILED, BAD_INPUT = 0, 1, 2
# What a shell says of SIGPIPE.
NOBODY_READS = 128 + signal.SIGPIPE

# What is said of a path to read; of the others see `remedy_of`.
_REMEDIES = {
    errno.ENOENT: "check the path; what is missing from a shard folder comes back with `build`",
    **dict.fromkeys(NO_SPACE, "free some space and give the same command again"),
}


GoesOnBy: TypeAlias = Literal["steps", "tasks", "nothing"]


@dataclass(frozen=True)
class Command:
    """One verb of a package: what it takes, where its results go, and what a second start finds.

    `subject` is what it is about: a profile that holds `settings` (or, of several kinds, what
    `settings_of` says by its keys), the folder of a run, or nothing.
    `own_overrides` says which overrides are of `settings`; dotted ones may be those of profiles
    that these name. `folder` is the field of the settings with the folder of results; without one
    that is the subject. A start goes on by the steps that a run folder holds, by the tasks that
    are done already, or by nothing: it begins anew. `ranks`: whether several processes may run it
    together.

    `check` raises InputError for what would end a start in its first minute; it gets settings,
    folder and ranks. `figures` are the results, by name, that a table of many runs shows.
    `add_arguments` adds what only this verb takes, which `run` gets by keyword after the subject
    (if there is one) and the overrides; it returns an exit status.
    """

    name: str
    help: str
    run: Callable[..., int]
    subject: Literal["profile", "run_folder"] | None = "profile"
    settings: type[Config] | None = None
    settings_of: Callable[[Collection[str]], type[Config]] | None = None
    own_overrides: Literal["all", "undotted"] = "all"
    folder: str | None = None
    goes_on_by: GoesOnBy = "nothing"
    ranks: Literal["any", "one"] = "one"
    check: Callable[[Any, Path, int], None] | None = None
    figures: Callable[[Any, Path], dict[str, float]] | None = None
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None

    def kind_of(self, profile: Path) -> type[Config]:
        """The kind of settings that a profile holds. Raises InputError as `load_profile`."""
        assert self.settings is not None, f"{self.name} has no settings"
        return self.settings if self.settings_of is None else self.settings_of(keys_of(profile))

    def goes_on_by_of(self, kind: type[Config]) -> GoesOnBy:
        """What a second start finds: as the kind of settings says of itself, or else the verb."""
        found: GoesOnBy = getattr(kind, "goes_on_by", self.goes_on_by)
        return found

    def read(self, subject: Path | None, overrides: Sequence[str]) -> tuple[Config, Path]:
        """The settings that a command line describes, and the folder of results."""
        assert self.settings is not None, f"{self.name} has no settings"
        own = overrides if self.own_overrides == "all" else split_dotted(overrides)[0]
        if self.subject == "profile" and subject is not None:
            settings = load_profile(self.kind_of(subject), subject, own)
        else:
            settings = validate(self.settings, parse_overrides(own), where=self.name)
        folder: Path | None = getattr(settings, self.folder) if self.folder else subject
        assert folder is not None, f"{self.name} has no folder of results"
        return settings, folder

    def refuse_what_cannot_start(self, subject: Path | None, overrides: Sequence[str]) -> None:
        """Raise InputError at once for what `run` would refuse after seconds of imports."""
        if self.settings is not None:
            settings, folder = self.read(subject, overrides)
            if self.check is not None:
                self.check(settings, folder, launcher_number("WORLD_SIZE") or 1)


def run_command(
    package: str,
    commands: Sequence[Command],
    arguments: Sequence[str] | None,
    *,
    description: str,
    epilog: str | None = None,
) -> int:
    """`python -m PACKAGE VERB SUBJECT key=value ...`: the exit status."""
    parser = new_parser(package, description=description, epilog=epilog)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for command in commands:
        verb = verbs.add_parser(command.name, help=command.help, description=command.help)
        if command.subject == "profile":
            verb.add_argument("subject", type=Path, metavar="PROFILE.yaml", help="see configs/")
        elif command.subject == "run_folder":
            verb.add_argument("subject", type=Path, metavar="RUN_FOLDER")
        if command.add_arguments is not None:
            command.add_arguments(verb)
        add_overrides(verb)
    options = vars(parse(parser, arguments))
    name = options.pop("verb")
    command = next(each for each in commands if each.name == name)
    about = [options.pop("subject")] if command.subject is not None else []
    overrides = options.pop("overrides")

    def run() -> int:
        command.refuse_what_cannot_start(about[0] if about else None, overrides)
        return command.run(*about, overrides, **options)

    return guarded(run)


def new_parser(
    package: str, *, description: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    """A parser of `python -m PACKAGE`; the epilog keeps its lines."""
    return argparse.ArgumentParser(
        f"python -m {package}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Changes to a profile, which may follow any option."""
    parser.add_argument(
        "overrides",
        nargs="*",
        # Without one argparse says of `*` that it is required.
        default=[],
        metavar="key=value",
        help="changes to the profile, dotted for nested keys: data.global_batch=64",
    )


def parse(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """The options; overrides may follow an option, which Python 3.11's argparse does not expect."""
    options, rest = parser.parse_known_args(arguments)
    takes_overrides = hasattr(options, "overrides")
    bad = [each for each in rest if each.startswith("-") or "=" not in each or not takes_overrides]
    if bad:
        parser.error(f"unrecognized arguments: {' '.join(bad)}")
    if takes_overrides:
        options.overrides = [*options.overrides, *rest]
    return options


def split_dotted(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """(those of a command's own settings, the dotted ones of the profiles that these name)."""
    own = [each for each in overrides if "." not in each.partition("=")[0]]
    return own, [each for each in overrides if each not in own]


def guarded(action: Callable[[], int]) -> int:
    """What `action` returns, or the exit status of its error, told in one line on stderr."""
    try:
        return action()
    except (InputError, RunError) as error:
        if not getattr(error, "is_said", False):
            say_once(f"error: {error}")
        return exit_status_of(error)
    except BrokenPipeError:
        # Whoever read has enough (`| head`); what is still to be flushed has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        remedy = _REMEDIES.get(error.errno or 0) or remedy_of(error)
        say_once(f"error: {where}{error.strerror or error}: {remedy}")
        return BAD_INPUT
    except KeyboardInterrupt:
        say_once(INTERRUPTED_LINE)
        return INTERRUPTED


def shell_line(*words: object) -> str:
    """Words as a shell takes them: what a message tells to type can be pasted."""
    return shlex.join(map(str, words))


def exit_status_of(error: BaseException) -> int:
    """The status that a command leaves with."""
    if isinstance(error, RunError):
        return error.exit_status
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return BAD_INPUT if isinstance(error, InputError | OSError) else FAILED
