"""What a checkpoint costs training, written in the background and written at once.

Each round takes usual steps, a background save with as many steps as it lasts, usual steps again,
and a save that training waits for. The steps do forward, loss, backward and update on a batch in
memory: no loader, so that nothing but the save takes time from them. A round is compared with its
own usual steps and the median round counts, so that a slow minute of the machine does not.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import NonNegativeInt, PositiveInt

from data_shards.profiles import Config, parse_overrides, validate
from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.methods.lovt.method import LovtConfig, build_lovt
from distributed_pretrain.run_folder.checkpoint import Checkpoint, TrainingState, save_checkpoint
from distributed_pretrain.run_folder.checkpoint_writer import CheckpointWriter
from distributed_pretrain.run_folder.tensor_files import split_tensors

TARGET_RATIO = 1.2
VOCABULARY_SIZE = 28_996  # of the BERTs of the field
TOKENS_A_SENTENCE = 16


class CheckpointBenchmarkConfig(Config):
    """The paper's model sizes with every layer trained (random weights: nothing is downloaded).

    `usual_steps` come before each background save and again after it. `folder` is on the disk to
    be measured; by default the system's temporary one.
    """

    rounds: PositiveInt = 3
    usual_steps: PositiveInt = 3
    warmup_steps: NonNegativeInt = 2
    batch: PositiveInt = 8
    sentences: PositiveInt = 4
    backbone: str = "resnet50"
    hidden_size: PositiveInt = 768
    layers: PositiveInt = 12
    image_size_px: PositiveInt = 224
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
    """Measure and print a table, then one line of JSON. Raises InputError for a bad override."""
    values = parse_overrides(overrides)
    config = validate(CheckpointBenchmarkConfig, values, where="benchmark checkpoint")
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        figures = measure(config, Path(folder))
    for name, value in figures.items():
        print(f"  {name:36s} {value:10.4f}")
    verdict = "reached" if figures["background_ratio"] <= TARGET_RATIO else "MISSED"
    print(f"  steps with a save under way / usual at most {TARGET_RATIO}: {verdict}")
    print(json.dumps(figures))


def measure(config: CheckpointBenchmarkConfig, folder: Path) -> dict[str, float]:
    """`figures_of` the rounds and the first snapshot, with checkpoints written under `folder`."""
    training = _Training(config)
    for _ in range(1 + config.warmup_steps):  # the first makes the optimizer's moments
        training.step()
    with closing(CheckpointWriter(folder / "background", keep=1)) as writer:
        first_snapshot = training.seconds(lambda: _save(writer, training))
        writer.wait()
        rounds = [_measure_round(config, folder, training, writer) for _ in range(config.rounds)]
    figures = figures_of(rounds, state_bytes=_state_bytes(training.checkpoint()))
    return figures | {"first_snapshot_seconds": first_snapshot}


def _measure_round(
    config: CheckpointBenchmarkConfig, folder: Path, training: _Training, writer: CheckpointWriter
) -> Round:
    usual = [training.step() for _ in range(config.usual_steps)]
    snapshot = training.seconds(lambda: _save(writer, training))
    beside = [training.step()]
    while writer.is_saving:
        beside.append(training.step())
    usual += [training.step() for _ in range(config.usual_steps)]
    at_once = training.seconds(lambda: _save_at_once(folder, training))
    return Round(usual, snapshot, beside, at_once)


def _save(writer: CheckpointWriter, training: _Training) -> None:
    writer.save(training.checkpoint(), is_best=False)


def _save_at_once(folder: Path, training: _Training) -> None:
    save_checkpoint(folder / "at_once", training.checkpoint(), keep=1, is_best=False)


class _Training:
    """LoVT and AdamW on one batch in memory."""

    def __init__(self, config: CheckpointBenchmarkConfig) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._method = build_lovt(_method_config(config), vocabulary_size=VOCABULARY_SIZE)
        self._method.to(self._device).train()
        self._optimizer = torch.optim.AdamW(self._method.parameters(), lr=1e-5, fused=True)
        with self._device:
            self._batch = _synthetic_batch(config)
        self._config = config.model_dump(mode="json")
        self._steps = 0

    def step(self) -> float:
        """Seconds of one update."""
        self._steps += 1
        return self.seconds(self._update)

    def checkpoint(self) -> Checkpoint:
        """As the trainer's: not copied."""
        return Checkpoint(
            state=TrainingState(step=self._steps),
            config=self._config,
            model=self._method.state_dict(),
            optimizer=self._optimizer.state_dict(),
        )

    def seconds(self, action: Callable[[], None]) -> float:
        """Seconds of `action` and of what it starts on the device."""
        started = time.perf_counter()
        action()
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def _update(self) -> None:
        self._method.loss(self._method(self._batch))["total"].backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


def _state_bytes(checkpoint: Checkpoint) -> int:
    _, optimizer = split_tensors(checkpoint.optimizer)
    return sum(tensor.nbytes for tensor in (*checkpoint.model.values(), *optimizer.values()))


def _method_config(config: CheckpointBenchmarkConfig) -> LovtConfig:
    values = {
        "image_encoder": {"backbone": config.backbone, "weights": None},
        "report_encoder": {
            "name": "new",
            "hidden_size": config.hidden_size,
            "layers": config.layers,
            "heads": max(1, config.hidden_size // 64),
            "intermediate_size": 4 * config.hidden_size,
        },
    }
    return validate(LovtConfig, values, where="benchmark checkpoint")


def _synthetic_batch(config: CheckpointBenchmarkConfig) -> Batch:
    """Noise under reports of equal sentences, between CLS and SEP."""
    tokens = config.sentences * TOKENS_A_SENTENCE + 2
    position = torch.arange(tokens).expand(config.batch, -1)
    between = (position > 0) & (position < tokens - 1)
    return Batch(
        keys=tuple(f"study-{number}" for number in range(config.batch)),
        images=torch.randn(config.batch, 1, config.image_size_px, config.image_size_px),
        report=ReportTokens(
            token_ids=torch.randint(1, VOCABULARY_SIZE, position.shape),
            token_mask=torch.ones_like(between),
            sentence_index=torch.where(between, (position - 1) // TOKENS_A_SENTENCE, -1),
            sentence_mask=torch.ones(config.batch, config.sentences, dtype=torch.bool),
            word_index=torch.where(between, position - 1, -1),
        ),
        sample_mask=torch.ones(config.batch, dtype=torch.bool),
    )
