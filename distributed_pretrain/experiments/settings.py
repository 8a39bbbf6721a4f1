"""What a comparison of methods trains, and how it is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from data_shards.commands import COMMANDS
from data_shards.profiles import CONFIGS, Config, load_profile
from distributed_pretrain.evaluation.settings import EvaluateConfig
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.step_folders import LAST

# What a method learns from; `none` is a starting point.
Supervision = Literal["reports", "images", "labels", "none"]


class QuickstartConfig(Config):
    """What the quickstart builds and trains, and where its results go."""

    shards_profile: Path = CONFIGS / "shards" / "phantom_quickstart.yaml"
    profile: Path = CONFIGS / "pretrain" / "lovt_quickstart.yaml"
    output: Path = Path("runs/quickstart")


class ComparedMethod(Config):
    """One row of the table: a pre-training profile with the overrides that make it this row."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    title: str
    supervision: Supervision
    profile: Path
    overrides: tuple[str, ...] = ()


class Bar(Config):
    """What is asked of a row: `metric` above `times` another figure `plus` so much, seed by seed.

    The other figure is that of `than_method`, or `than_metric` of the same runs, or both; without
    either it is `plus` alone.
    """

    says: str
    method: str
    metric: str
    than_method: str | None = None
    than_metric: str | None = None
    times: PositiveFloat = 1.0
    plus: float = 0.0

    @model_validator(mode="after")
    def _times_something(self) -> Self:
        if self.times != 1 and not (self.than_method or self.than_metric):
            raise ValueError("times: of which figure? give than_method or than_metric")
        return self


class ComparisonConfig(Config):
    """Every method times every seed: trained, evaluated, collected in `output`, told on `page`.

    `shards_profile` is built into `shards`, which all runs use. The linear tasks are fitted
    `labelled_subsets` times, each time to other `labelled_studies` training studies, and averaged;
    `labels` are those to tell (none: all).
    `processes` runs go on at a time with `threads` each (null: one for each core). `only` names
    the methods to train now; the page always tells of all. `notes` are paragraphs beneath its
    checks, which are the papers' expectations or, where there are any, the `bars`. `overrides` are
    those of every row, behind its own.
    """

    title: str
    output: Path
    page: Path
    shards_profile: Path
    shards: Path
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0, 1, 2)
    labelled_studies: PositiveInt = 100
    labelled_subsets: PositiveInt = 3
    labels: tuple[str, ...] = ()
    processes: PositiveInt | None = None
    threads: PositiveInt = 1
    methods: Annotated[tuple[ComparedMethod, ...], Field(min_length=1)]
    only: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    bars: tuple[Bar, ...] = ()
    overrides: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        names = [method.name for method in self.methods]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{twice[0]!r} is the name of two methods")
        told = {name for bar in self.bars for name in (bar.method, bar.than_method) if name}
        if strangers := sorted(told - set(names)):
            raise ValueError(f"bars: {strangers[0]!r} is none of {', '.join(names)}")
        if unknown := [name for name in self.only if name not in names]:
            raise ValueError(f"only: {unknown[0]!r} is none of {', '.join(names)}")
        return self


class RunJob(Config):
    """One run of a comparison, as its process reads it; `result` is written when all is done."""

    method: str
    seed: NonNegativeInt
    pretrain: PretrainConfig
    evaluate: EvaluateConfig

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.pretrain.run_folder

    @property
    def result(self) -> Path:
        """Where the run's figures go."""
        return self.folder / "result.json"


def jobs_of(config: ComparisonConfig, overrides: tuple[str, ...] = ()) -> tuple[RunJob, ...]:
    """The runs to be made, all methods of the first seed first.

    `overrides` come after each method's own. Raises InputError for a profile that is not there or
    not valid.
    """
    evaluate = EvaluateConfig(
        # The last one: after the same number of steps for all, whatever they call their best.
        checkpoint=LAST,
        labelled_studies=config.labelled_studies,
        labelled_subsets=config.labelled_subsets,
        labels=config.labels,
    )
    jobs = []
    wanted = [each for each in config.methods if not config.only or each.name in config.only]
    for seed in config.seeds:
        for method in wanted:
            fixed = (
                f"run_folder={config.output / method.name / f'seed_{seed}'}",
                f"seed={seed}",
                f"data.shards={config.shards}",
            )
            changes = (*method.overrides, *config.overrides, *overrides, *fixed)
            pretrain = load_profile(PretrainConfig, method.profile, changes)
            jobs.append(RunJob(method=method.name, seed=seed, pretrain=pretrain, evaluate=evaluate))
    return tuple(jobs)


def refuse_what_cannot_start(config: ComparisonConfig, folder: Path, ranks: int) -> None:
    """Raise InputError for what would end a start in its first minute.

    Profiles that are not there or not valid, and, where a run is still to be made, shards that
    cannot be built.
    """
    del folder
    if all(job.result.exists() for job in jobs_of(config)):
        return
    build = next(command for command in COMMANDS if command.name == "build")
    settings, output = build.read(config.shards_profile, [f"output={config.shards}"])
    assert build.check is not None
    build.check(settings, output, ranks)
