"""What a checkpoint costs training, written in the background and written at once.

Each round takes usual steps, then a background save with as many steps as it lasts, then a save
that training waits for. The steps do forward, loss, backward and update on batches in memory: no
loader, so that nothing but the save takes time from them. The rounds mix the three kinds, so that
a slow minute of the machine hits all.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import NonNegativeInt, PositiveInt

from data_shards.profiles import Config, parse_overrides, validate
from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.checkpoint import Checkpoint, TrainingState, save_checkpoint
from distributed_pretrain.checkpoint_writer import CheckpointWriter
from distributed_pretrain.methods.lovt import LovtConfig, build_lovt
from distributed_pretrain.tensor_files import split_tensors

TARGET_RATIO = 1.2
VOCABULARY_SIZE = 28_996  # of the BERTs of the field
TOKENS_A_SENTENCE = 16


class CheckpointBenchmarkConfig(Config):
    """The paper's model sizes with every layer trained (random weights: nothing is downloaded).

    `folder` is on the disk to be measured; by default the system's temporary one.
    """

    rounds: PositiveInt = 3
    usual_steps: PositiveInt = 5
    warmup_steps: NonNegativeInt = 2
    batch: PositiveInt = 8
    sentences: PositiveInt = 4
    backbone: str = "resnet50"
    hidden_size: PositiveInt = 768
    layers: PositiveInt = 12
    image_size_px: PositiveInt = 224
    folder: Path | None = None


@dataclass(frozen=True)
class BackgroundSave:
    """Seconds of the `save` call, and of each step until all was on the disk."""

    snapshot: float
    steps: list[float]

    @property
    def total(self) -> float:
        """The whole window."""
        return self.snapshot + sum(self.steps)


@dataclass
class CheckpointTimes:
    """Seconds of the first snapshot, of usual steps, and of saves of both kinds."""

    first_snapshot: float
    usual: list[float] = field(default_factory=list)
    background: list[BackgroundSave] = field(default_factory=list)
    at_once: list[float] = field(default_factory=list)

    def figures(self, state_bytes: int) -> dict[str, float]:
        """Medians over rounds, and ratios to the usual step.

        `background_ratio` is that of whole windows: all steps with a save under way, and the
        snapshots. `at_once_ratio` is that of as many steps with a save that they wait for.
        """
        usual = statistics.median(self.usual)
        steps = [seconds for save in self.background for seconds in save.steps]
        written = statistics.median(sum(save.steps) for save in self.background)
        return {
            "state_gb": state_bytes / 1e9,
            "usual_step_seconds": usual,
            "slowest_usual_step_ratio": max(self.usual) / usual,
            "first_snapshot_seconds": self.first_snapshot,
            "snapshot_seconds": statistics.median(save.snapshot for save in self.background),
            "snapshot_and_step_ratio": statistics.median(
                (save.snapshot + save.steps[0]) / usual for save in self.background
            ),
            "median_step_ratio": statistics.median(steps) / usual,
            "slowest_step_ratio": max(steps) / usual,
            "steps_a_save": len(steps) / len(self.background),
            "background_mb_per_second": state_bytes / 1e6 / written,
            "background_ratio": sum(save.total for save in self.background) / (usual * len(steps)),
            "at_once_seconds": statistics.median(self.at_once),
            "at_once_and_step_ratio": 1 + statistics.median(self.at_once) / usual,
            "at_once_ratio": 1 + sum(self.at_once) / (usual * len(steps)),
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
    """The figures of `CheckpointTimes`, with checkpoints written under `folder`."""
    training = _Training(config)
    for _ in range(1 + config.warmup_steps):  # the first makes the optimizer's moments
        training.step()
    with closing(CheckpointWriter(folder / "background", keep=1)) as writer:
        times = CheckpointTimes(training.seconds(lambda: _save(writer, training)))
        for _ in range(config.rounds):
            writer.wait()
            times.usual += [training.step() for _ in range(config.usual_steps)]
            snapshot = training.seconds(lambda: _save(writer, training))
            steps = [training.step()]
            while writer.is_saving:
                steps.append(training.step())
            times.background.append(BackgroundSave(snapshot, steps))
            times.at_once.append(training.seconds(lambda: _save_at_once(folder, training)))
    return times.figures(_state_bytes(training.checkpoint()))


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
        ),
        sample_mask=torch.ones(config.batch, dtype=torch.bool),
    )
