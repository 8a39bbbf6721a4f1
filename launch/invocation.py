"""A command of the project with its words, read and checked before anything is queued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import data_shards.commands
import distributed_pretrain.commands
from data_shards.command_line import Command
from data_shards.errors import InputError
from data_shards.profiles import Config, dump_profile

# By the package that `python -m` starts; a verb without a package is of the first.
PACKAGES: dict[str, tuple[Command, ...]] = {
    "distributed_pretrain": distributed_pretrain.commands.COMMANDS,
    "data_shards": data_shards.commands.COMMANDS,
}
_SUBJECTS: dict[str | None, str] = {"profile": "PROFILE.yaml", "run_folder": "RUN_FOLDER"}


@dataclass(frozen=True)
class Invocation:
    """One command as `python -m` takes it, and the settings that its words make.

    `subject` is a profile or a run folder; `results` is where the results go, `folder` where the
    job lies: there too, but for the tasks of a sweep.
    """

    package: str
    command: Command
    subject: Path
    overrides: tuple[str, ...]
    settings: Config
    results: Path
    folder: Path

    @property
    def words(self) -> tuple[str, ...]:
        """As somebody types it after `python -m`."""
        return (self.package, self.command.name, str(self.subject), *self.overrides)

    @property
    def resolved_profile(self) -> str | None:
        """The profile with its parents and overrides; None where the words say all.

        A command whose profile names others reads those when it starts.
        """
        keeps = self.command.subject == "profile" and self.command.own_overrides == "all"
        return dump_profile(self.settings) if keeps else None

    def words_with(self, profile: Path) -> tuple[str, ...]:
        """The same command of `profile`, a file that holds `resolved_profile`."""
        return (self.package, self.command.name, str(profile))

    def check(self, *, ranks: int) -> None:
        """Raise InputError for what would end the job in its first minute."""
        if self.command.ranks == "one" and ranks > 1:
            raise InputError(
                f"{self.command.name} runs in one process, but the cluster profile asks for "
                f"{ranks}: pass nodes=1 ranks_per_node=null gpus_per_node=1 (0 without a GPU) "
                "before the --"
            )
        if self.command.check is not None:
            self.command.check(self.settings, self.results, ranks)

    @property
    def figures(self) -> dict[str, float]:
        """The results there are, by name."""
        figures = self.command.figures
        return {} if figures is None else figures(self.settings, self.results)


def find_command(words: Sequence[str]) -> tuple[str, Command, list[str]]:
    """The package and command that `words` begin with, and the rest; InputError for no such job."""
    package, rest = next(iter(PACKAGES)), list(words)
    if rest[:1] and rest[0] in PACKAGES:
        package = rest.pop(0)
    for command in _for_jobs(package):
        if rest[:1] == [command.name]:
            return package, command, rest[1:]
    said = f"{package} {rest[0]}: not a command for a cluster" if rest else "no command"
    raise InputError(f"{said}: write {_known()} after the --")


def read_invocation(words: Sequence[str], *, frozen: Path | None = None) -> Invocation:
    """The command that `words` say; as it was submitted, where `frozen` holds its profile."""
    package, command, rest = find_command(words)
    if not rest:
        raise InputError(f"{' '.join(words)}: of what? Write {_known()} after the --")
    subject, overrides = Path(rest[0]), tuple(rest[1:])
    if frozen is not None and frozen.exists():
        subject, overrides = frozen, ()
    elif command.subject == "run_folder":
        # Its figures are asked for from other folders later.
        subject = subject.absolute()
    settings, folder = command.read(subject, overrides)
    folder = folder.absolute()
    return Invocation(package, command, subject, overrides, settings, folder, folder)


def said_commands() -> list[tuple[str, str]]:
    """What may stand after the --, and what it does; the first package's name is left out."""
    prefixes = ("", *(f"{package} " for package in list(PACKAGES)[1:]))
    return [
        (f"{prefix}{each.name} {_SUBJECTS[each.subject]}", each.help)
        for prefix, package in zip(prefixes, PACKAGES, strict=True)
        for each in _for_jobs(package)
    ]


def _for_jobs(package: str) -> list[Command]:
    """Those that leave results in a folder of their subject, and need overrides alone.

    What another start goes on with is one of them, whatever options it has for a terminal.
    """
    return [
        each
        for each in PACKAGES[package]
        if each.subject and each.settings
        if each.goes_on_by != "nothing" or not each.add_arguments
    ]


def _known() -> str:
    *others, last = [said for said, _ in said_commands()]
    return f"{', '.join(others)} or {last}"
