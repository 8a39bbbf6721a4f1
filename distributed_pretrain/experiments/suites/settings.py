"""A list of downstream tasks that one encoder is tried on, and the tables that tell of them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from data_shards.command_line import GoesOnBy
from data_shards.errors import InputError
from data_shards.profiles import Config, load_profile
from distributed_pretrain.downstream import settings as downstream
from distributed_pretrain.downstream.results import read_result
from distributed_pretrain.downstream.settings import STARTS, DownstreamConfig, EncoderConfig

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]+$")]


class SuiteTask(Config):
    """One task: its profile, with the overrides that make it this one (a fraction, say)."""

    name: Name
    profile: Path
    overrides: tuple[str, ...] = ()


class Claim(Config):
    """That `method` is better than another, both by the names of their rows."""

    says: str
    method: Name
    than: Name


class BuiltShards(Config):
    """Shards that a list of tasks builds for itself: their profile, and the folder for them."""

    profile: Path
    output: Path


@dataclass(frozen=True)
class ReadTask:
    """A task as a suite runs it: the overrides of its profile, and the settings these make.

    `built` are shards that are built in place of `named_shards`, those that its profile names.
    """

    task: SuiteTask
    words: tuple[str, ...]
    config: DownstreamConfig
    named_shards: str
    built: BuiltShards | None


class SuiteConfig(Config):
    """Every task on one encoder, each in `run_folder`/`method`/its name, and the papers' tables.

    `method` names the encoder: the row of the tables (null: its run folder's name, or its own).
    `overrides` are those of every task, behind its own, and `protocol_overrides` behind these those
    of the tasks of a protocol. `shards` puts others in place of the
    folders that tasks name in `data.shards`, and they are built first: the phantom for a set that
    nobody has yet. `only` names the tasks to run now, and `only_seeds` those of their seeds; the
    tables always tell of all, and of all methods there are, `rows` first, which are titles of own
    ones by their names. `claims` are held against the figures
    beneath the tables, and `notes` are paragraphs above them. `processes` tasks go on at a time
    with `threads` each (null: one process, with all cores).
    """

    goes_on_by: ClassVar[GoesOnBy] = "tasks"

    title: str
    run_folder: Path
    encoder: EncoderConfig
    method: Name | None = None
    tasks: Annotated[tuple[SuiteTask, ...], Field(min_length=1)]
    tables: tuple[Path, ...] = ()
    rows: dict[Name, str] = Field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    notes: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    protocol_overrides: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    shards: dict[str, BuiltShards] = Field(default_factory=dict)
    only: tuple[str, ...] = ()
    only_seeds: tuple[NonNegativeInt, ...] = ()
    processes: PositiveInt = 1
    threads: PositiveInt | None = None

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        names = [task.name for task in self.tasks]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"tasks: {twice[0]!r} is the name of two tasks: rename one")
        if unknown := [name for name in self.only if name not in names]:
            raise ValueError(f"only: {unknown[0]!r} is none of {', '.join(names)}")
        claimed = [name for claim in self.claims for name in (claim.method, claim.than)]
        if unknown := [name for name in claimed if name not in self.rows]:
            known = ", ".join(self.rows) or "none"
            raise ValueError(f"claims: {unknown[0]!r} is the name of no row ({known}): correct it")
        if self.claims and not self.tables:
            raise ValueError("claims: are held against the figures of tables: give tables")
        return self

    @property
    def row(self) -> str:
        """The method's name."""
        if self.method is not None:
            return self.method
        if self.encoder.run_folder is not None:
            return _as_name(self.encoder.run_folder.resolve().name)
        assert self.encoder.image_encoder is not None
        weights = self.encoder.image_encoder.weights
        words = {start: word for word, start in STARTS.items()}
        return words.get(weights) or _as_name(str(weights))

    def folder(self, method: str, task: str) -> Path:
        """Where a task's runs are."""
        return self.run_folder / method / task

    def read(self, task: SuiteTask) -> ReadTask:
        """A task of this suite. Raises InputError for a profile that is not there or not valid."""
        encoder = json.dumps(self.encoder.model_dump(mode="json"))
        fixed = (f"encoder={encoder}", f"run_folder={self.folder(self.row, task.name)}")
        words = (*task.overrides, *self.overrides, *fixed)
        config = load_profile(DownstreamConfig, task.profile, words)
        # By what it is as yet.
        more = self.protocol_overrides.get(config.protocol.name, ())
        named = str(config.data.shards)
        built = self.shards.get(named)
        if built is not None:
            more = (*more, f"data.shards={built.output}")
        if self.only_seeds:
            more = (*more, f"only_seeds={list(self.only_seeds)}")
        if more:
            words = (*words, *more)
            config = load_profile(DownstreamConfig, task.profile, words)
        return ReadTask(task, words, config, named, built)

    @property
    def wanted(self) -> tuple[SuiteTask, ...]:
        """The tasks to run now."""
        return tuple(task for task in self.tasks if not self.only or task.name in self.only)


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", text)


def is_done(config: DownstreamConfig) -> bool:
    """Whether a task has the figures of all wanted seeds. Raises InputError as `read_result`."""
    result = read_result(config)
    return result is not None and result.has(config.wanted_seeds)


def figures(config: SuiteConfig | DownstreamConfig, folder: Path) -> dict[str, float]:
    """What was measured on the test split, of a list that of the one task that is wanted."""
    if isinstance(config, SuiteConfig):
        if len(config.wanted) != 1:
            return {}
        config = config.read(config.wanted[0]).config
        folder = config.run_folder
    return downstream.figures_of_task(config, folder)


def refuse_what_cannot_start(
    config: SuiteConfig | DownstreamConfig, folder: Path, ranks: int
) -> None:
    """Raise InputError for what would end a start in its first minute."""
    if isinstance(config, DownstreamConfig):
        downstream.refuse_what_cannot_start(config, folder, ranks)
        return
    if ranks > 1:
        raise InputError(
            f"{len(config.tasks)} tasks are processes of their own, not of {ranks} ranks: start "
            "them in one, or one task alone on several"
        )
    downstream.refuse_missing_encoder(config.encoder)
    tasks = {task.name: config.read(task) for task in config.tasks}
    folders = {each.named_shards for each in tasks.values()}
    for named in config.shards:
        if named not in folders:
            raise InputError(f"shards: {named!r} is the data.shards of no task: correct the folder")
    protocols = {each.config.protocol.name for each in tasks.values()}
    for name in config.protocol_overrides:
        if name not in protocols:
            raise InputError(
                f"protocol_overrides: {name!r} is the protocol of no task: use "
                f"{', '.join(sorted(protocols))}"
            )
    for task in config.wanted:
        own = tasks[task.name]
        if own.config.procedure is None:
            raise InputError(
                f"{task.profile}: without a procedure it is a single run: give it learning_rates"
            )
        if own.built is None:
            downstream.refuse_what_cannot_start(own.config, own.config.run_folder, ranks)
