"""What a checkpoint costs training, written in the background and written at once.

Each round takes usual steps, a background save with as many steps as it lasts, usual steps again,
and a save that training waits for. The steps do forward, loss, backward and update on a batch in
memory: no loader, so that nothing but the save takes time from them. A round is compared with its
own usual steps and the median round counts, so that a slow minute of the machine does not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median

from pydantic import PositiveInt

from distributed_pretrain.benchmark import harness
from distributed_pretrain.benchmark.step import LovtSizes, bare_step, noise_batch, prepare
from distributed_pretrain.run_folder.checkpoint import Checkpoint, save_checkpoint
from distributed_pretrain.run_folder.checkpoint_writer import CheckpointWriter
from distributed_pretrain.run_folder.intact import TrainingState
from distributed_pretrain.run_folder.tensor_files import split_tensors

TARGET_RATIO = 1.2
VOCABULARY_SIZE = 28_996  # of the BERTs of the field
WARMUP_STEPS = 3  # the first makes the optimizer's moments


class Settings(LovtSizes):
    """Every layer is trained.

    `usual_steps` come before each background save and again after it. `folder` is on the disk to
    be measured; by default the system's temporary one.
    """

    rounds: PositiveInt = 3
    usual_steps: PositiveInt = 3
    folder: Path | None = None


def round_figures(
    usual: Sequence[float],
    snapshot: float,
    beside: Sequence[float],
    at_once: float,
    *,
    state_bytes: int,
) -> dict[str, float]:
    """What a round shows, from seconds: of usual steps and of saves.

    `snapshot` is the `save` call in the background, `beside` every step until all was on the disk,
    `at_once` the save that training waits for. `background_ratio` is of all steps with a save
    under way, and its snapshot, to as many usual ones.
    """
    step, steps = median(usual), len(beside)
    return {
        "state_gb": state_bytes / 1e9,
        "usual_step_seconds": step,
        "slowest_usual_step_ratio": max(usual) / step,
        "snapshot_seconds": snapshot,
        "snapshot_and_step_ratio": (snapshot + beside[0]) / step,
        "median_step_ratio": median(beside) / step,
        "slowest_step_ratio": max(beside) / step,
        "steps_a_save": steps,
        "background_mb_per_second": state_bytes / 1e6 / sum(beside),
        "background_ratio": (snapshot + sum(beside)) / (steps * step),
        "at_once_seconds": at_once,
        "at_once_and_step_ratio": 1 + at_once / step,
        "at_once_ratio": 1 + at_once / (steps * step),
    }


def run(config: Settings) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        rounds = measure(config, Path(folder))
    figures = {name: median(each[name] for each in rounds) for name in rounds[0]}
    harness.print_figures(figures)
    ratio = figures["background_ratio"]
    harness.conclude(
        [harness.Target("steps with a save under way / usual", ratio, TARGET_RATIO)], figures
    )


def measure(config: Settings, folder: Path) -> list[dict[str, float]]:
    """`round_figures` of every round, with checkpoints written under `folder`."""
    numbers = count(1)
    with (
        harness.joined() as engine,
        closing(CheckpointWriter(folder / "background", keep=1)) as writer,
    ):
        prepare(engine, config.build(VOCABULARY_SIZE))
        bare = partial(bare_step, engine, noise_batch(config, engine.device))
        step = partial(harness.seconds_of, bare)

        def checkpoint() -> Checkpoint:
            """As the trainer's: not copied."""
            return Checkpoint(
                state=TrainingState(step=next(numbers)),
                config=config.model_dump(mode="json"),
                model=engine.model_state(),
                optimizer=engine.optimizer_state(),
            )

        def save() -> None:
            writer.save(checkpoint(), is_best=False)

        def save_at_once() -> None:
            save_checkpoint(folder / "at_once", checkpoint(), keep=1, is_best=False)

        for _ in range(WARMUP_STEPS):
            step()
        save()  # The first snapshot allocates its memory.
        writer.wait()
        _, optimizer = split_tensors(engine.optimizer_state())
        tensors = (*engine.model_state().values(), *optimizer.values())
        state_bytes = sum(each.nbytes for each in tensors)
        rounds = []
        for _ in range(config.rounds):
            usual = [step() for _ in range(config.usual_steps)]
            snapshot, beside = harness.seconds_of(save), [step()]
            while writer.is_saving:
                beside.append(step())
            usual += [step() for _ in range(config.usual_steps)]
            at_once = harness.seconds_of(save_at_once)
            figures = round_figures(usual, snapshot, beside, at_once, state_bytes=state_bytes)
            rounds.append(figures)
    return rounds
