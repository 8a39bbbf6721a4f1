"""What a checkpoint costs training, written in the background and written at once.

Each round takes usual steps, a background save with as many steps as it lasts, usual steps again,
and a save that training waits for. The steps do forward, loss, backward and update on a batch in
memory: no loader, so that nothing but the save takes time from them. A round is compared with its
own usual steps and the median round counts, so that a slow minute of the machine does not.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt

from distributed_pretrain.benchmark import harness
from distributed_pretrain.benchmark.bare_training import (
    LovtSizes,
    bare_step,
    build_lovt,
    noise_batch,
    prepare,
)
from distributed_pretrain.run_folder.checkpoint import Checkpoint, TrainingState, save_checkpoint
from distributed_pretrain.run_folder.checkpoint_writer import CheckpointWriter
from distributed_pretrain.run_folder.tensor_files import split_tensors

TARGET_RATIO = 1.2
VOCABULARY_SIZE = 28_996  # of the BERTs of the field
TOKENS_A_SENTENCE = 16


class CheckpointBenchmarkConfig(LovtSizes):
    """Every layer is trained.

    `usual_steps` come before each background save and again after it. `folder` is on the disk to
    be measured; by default the system's temporary one.
    """

    rounds: PositiveInt = 3
    usual_steps: PositiveInt = 3
    warmup_steps: NonNegativeInt = 2
    sentences: PositiveInt = 4
    folder: Path | None = None


@dataclass(frozen=True)
class Round:
    """Seconds of usual steps before and after a background save, of that save, of one at once.

    `snapshot` is the `save` call in the background, `beside` every step until all was on the disk.
    """

    usual: list[float]
    snapshot: float
    beside: list[float]
    at_once: float

    @property
    def usual_step(self) -> float:
        """The median."""
        return statistics.median(self.usual)

    @property
    def background_ratio(self) -> float:
        """All steps with the save under way, and the snapshot, to as many usual steps."""
        return (self.snapshot + sum(self.beside)) / (len(self.beside) * self.usual_step)

    @property
    def at_once_ratio(self) -> float:
        """The same steps with a save that they wait for, to as many usual steps."""
        return 1 + self.at_once / (len(self.beside) * self.usual_step)


def figures_of(rounds: Sequence[Round], *, state_bytes: int) -> dict[str, float]:
    """Medians over rounds (a slowest step is the median of the rounds' slowest)."""

    def median(value: Callable[[Round], float]) -> float:
        return statistics.median(map(value, rounds))

    return {
        "state_gb": state_bytes / 1e9,
        "usual_step_seconds": median(lambda r: r.usual_step),
        "slowest_usual_step_ratio": median(lambda r: max(r.usual) / r.usual_step),
        "snapshot_seconds": median(lambda r: r.snapshot),
        "snapshot_and_step_ratio": median(lambda r: (r.snapshot + r.beside[0]) / r.usual_step),
        "median_step_ratio": median(lambda r: statistics.median(r.beside) / r.usual_step),
        "slowest_step_ratio": median(lambda r: max(r.beside) / r.usual_step),
        "steps_a_save": median(lambda r: len(r.beside)),
        "background_mb_per_second": median(lambda r: state_bytes / 1e6 / sum(r.beside)),
        "background_ratio": median(lambda r: r.background_ratio),
        "at_once_seconds": median(lambda r: r.at_once),
        "at_once_and_step_ratio": median(lambda r: 1 + r.at_once / r.usual_step),
        "at_once_ratio": median(lambda r: r.at_once_ratio),
    }


def run(overrides: Sequence[str]) -> None:
    """Measure and print. Raises InputError for a bad override."""
    config = harness.read_settings(CheckpointBenchmarkConfig, overrides, verb="checkpoint")
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        figures = measure(config, Path(folder))
    harness.print_figures(figures)
    ratio = figures["background_ratio"]
    harness.conclude(
        [harness.Target("steps with a save under way / usual", ratio, TARGET_RATIO)], figures
    )


def measure(config: CheckpointBenchmarkConfig, folder: Path) -> dict[str, float]:
    """`figures_of` the rounds and the first snapshot, with checkpoints written under `folder`."""
    steps = count(1)
    with (
        harness.joined() as engine,
        closing(CheckpointWriter(folder / "background", keep=1)) as writer,
    ):
        prepare(engine, build_lovt(config.method(), vocabulary_size=VOCABULARY_SIZE))
        batch = noise_batch(config, engine.device, tokens=config.sentences * TOKENS_A_SENTENCE)
        seconds = partial(harness.seconds_of, device=engine.device)
        step = partial(seconds, partial(bare_step, engine, batch))

        def checkpoint() -> Checkpoint:
            """As the trainer's: not copied."""
            return Checkpoint(
                state=TrainingState(step=next(steps)),
                config=config.model_dump(mode="json"),
                model=engine.model_state(),
                optimizer=engine.optimizer_state(),
            )

        def save() -> None:
            writer.save(checkpoint(), is_best=False)

        def save_at_once() -> None:
            save_checkpoint(folder / "at_once", checkpoint(), keep=1, is_best=False)

        for _ in range(1 + config.warmup_steps):  # the first makes the optimizer's moments
            step()
        first_snapshot = seconds(save)
        writer.wait()
        rounds = []
        for _ in range(config.rounds):
            usual = [step() for _ in range(config.usual_steps)]
            snapshot = seconds(save)
            beside = [step()]
            while writer.is_saving:
                beside.append(step())
            usual += [step() for _ in range(config.usual_steps)]
            rounds.append(Round(usual, snapshot, beside, seconds(save_at_once)))
        _, optimizer = split_tensors(engine.optimizer_state())
        state_bytes = sum(
            each.nbytes for each in (*engine.model_state().values(), *optimizer.values())
        )
    return figures_of(rounds, state_bytes=state_bytes) | {"first_snapshot_seconds": first_snapshot}
