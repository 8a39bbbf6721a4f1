"""What a task has measured: its runs by seed, the rate they learnt at, and what it was tried on.

Nothing here needs torch: tables and launchers read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from data_shards.errors import InputError
from data_shards.files.atomic import write_text_atomically
from data_shards.files.regular import read_regular
from data_shards.profiles import Config, first_difference, validate
from distributed_pretrain.downstream.settings import DownstreamConfig, EncoderConfig
from distributed_pretrain.measures.metric import mean_figures
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.step_folders import MARKER, UNTRAINED
from distributed_pretrain.run_folder.task_folder import TaskFolder, turn


class TaskResult(Config):
    """What is known of a task so far.

    `made_with` are the values of its config, and `encoder` says which weights it was tried on,
    wherever those lie. `searched` are the validation figures of the learning rates, by the rate as
    it is printed, `learning_rate` the one that was taken, and `runs` the figures of the test split
    by seed; of a task that is under way there are fewer than seeds.
    """

    made_with: dict[str, Any]
    encoder: str
    searched: dict[str, float] = Field(default_factory=dict)
    learning_rate: float | None = None
    runs: dict[str, dict[str, float]] = Field(default_factory=dict)

    def values_of(self, metric: str) -> list[float]:
        """A figure of every run that has it, in the order of the seeds."""
        return [figures[metric] for figures in self.runs.values() if metric in figures]

    def has(self, seeds: Iterable[int]) -> bool:
        """Whether all of these were run."""
        return all(str(seed) in self.runs for seed in seeds)

    def means(self) -> dict[str, float]:
        """The mean over the runs of each figure that all of them have."""
        return mean_figures(list(self.runs.values()))


def new_result(config: DownstreamConfig) -> TaskResult:
    """That of a task of which nothing was run."""
    # Those of all starts that share the task, whichever seeds are theirs.
    made_with = config.model_copy(update={"only_seeds": ()}).model_dump(mode="json")
    return TaskResult(made_with=made_with, encoder=encoder_identity(config.encoder))


def stored_result(folder: Path) -> TaskResult | None:
    """What a task's folder holds, held against nothing; None before its first start.

    Raises InputError for a damaged file.
    """
    path = TaskFolder(folder).task
    try:
        return TaskResult.model_validate_json(read_regular(path))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise InputError(
            f"{path}: damaged: delete it, and the same command (without only_seeds) takes the runs "
            "beside it together"
        ) from error


def read_result(config: DownstreamConfig) -> TaskResult | None:
    """What the task's folder holds; None before its first start.

    Raises InputError for a folder of another task, of the same on other weights, and for a damaged
    file.
    """
    found = stored_result(config.run_folder)
    if found is None:
        return None
    # As if it were written now: a later release may know more fields.
    made_with = validate(
        DownstreamConfig, found.made_with, where=str(TaskFolder(config.run_folder).task)
    )
    difference = first_difference(made_with.deciding(), config.deciding())
    encoder = encoder_identity(config.encoder)
    if difference is None and found.encoder != encoder:
        difference = f"encoder ({found.encoder} then, {encoder} now)"
    if difference is not None:
        raise InputError(
            f"{config.run_folder} holds a task of another config: {difference}: choose another "
            "run_folder, or delete this one"
        )
    return found


def note_result(
    config: DownstreamConfig,
    *,
    learning_rate: float | None = None,
    searched: Mapping[str, float] | None = None,
    runs: Mapping[str, dict[str, float]] | None = None,
) -> TaskResult:
    """Add to what the task's folder holds, whoever else adds at the same time; what it is then.

    Raises InputError as `read_result`.
    """
    run = TaskFolder(config.run_folder)
    with turn(run.path):
        result = read_result(config) or new_result(config)
        every = {**result.runs, **(runs or {})}
        seeds = config.procedure.seeds if config.procedure is not None else ()
        changes = {
            "learning_rate": learning_rate or result.learning_rate,
            "searched": searched or result.searched,
            "runs": {seed: every[seed] for seed in map(str, seeds) if seed in every},
        }
        result = result.model_copy(update=changes)
        write_text_atomically(run.task, result.model_dump_json(indent=1) + "\n")
    return result


def encoder_identity(config: EncoderConfig) -> str:
    """Which weights an encoder begins with: the same for the same, wherever they lie.

    Raises InputError where a run or a file is not there.
    """
    if config.run_folder is not None:
        run = RunFolder(config.run_folder)
        run.refuse_missing(checkpoint=config.checkpoint)
        if run.checkpoint_name(config.checkpoint) == UNTRAINED:
            return f"{UNTRAINED} {_digest(run.config)}"
        return f"checkpoint {_digest(run.checkpoint(config.checkpoint) / MARKER)}"
    assert config.image_encoder is not None
    weights = config.image_encoder.weights
    if weights is not None and Path(weights).is_file():
        return f"{config.image_encoder.backbone} of {_digest(Path(weights))}"
    return f"{config.image_encoder.backbone} with {weights or f'seed {config.seed}'}"


def _digest(path: Path) -> str:
    return sha256(read_regular(path)).hexdigest()[:16]
