"""Counters of a checkpoint that go together, and those that no run can have counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.run_folder.intact import TrainingState
from distributed_pretrain.training.resuming import contradiction
from distributed_pretrain.training.settings import RunConfig, TrainingConfig

CONFIG = RunConfig(
    run_folder=Path("run"),
    training=TrainingConfig(early_stopping=None),
    data=DataConfig(shards=Path("shards"), global_batch=8),
)

SOUND = {
    "the beginning": (TrainingState(), 0),
    "after five steps": (TrainingState(step=5, samples_consumed=40), 5),
    "one of them skipped": (TrainingState(step=5, samples_consumed=40, skipped_steps=1), 4),
    "the last two skipped": (
        TrainingState(step=5, samples_consumed=40, skipped_steps=2, consecutive_skips=2),
        3,
    ),
    # Steps 3 to 5 were skipped, and made again with the samples that follow.
    "after a way back": (
        TrainingState(step=2, samples_consumed=40, skipped_steps=3, rewinds=1),
        2,
    ),
    "a way back and five more": (
        TrainingState(step=6, samples_consumed=72, skipped_steps=3, rewinds=1, finished=True),
        6,
    ),
}


@pytest.mark.parametrize(("state", "updates"), SOUND.values(), ids=SOUND)
def test_what_runs_count_goes_together(state: TrainingState, updates: int) -> None:
    assert contradiction(state, CONFIG, total_steps=6, updates=updates) is None


def forged(**counters: int) -> TrainingState:
    return TrainingState(**{"step": 5, "samples_consumed": 40, **counters})  # type: ignore[arg-type]


FORGED = {
    "a batch less": (forged(samples_consumed=32), "samples_consumed=32 does not go with step=5"),
    "a batch more": (forged(samples_consumed=48), "samples_consumed=48 does not go with step=5"),
    "part of a batch": (forged(samples_consumed=41), "samples_consumed=41 does not go with"),
    "none": (forged(samples_consumed=0), "samples_consumed=0 does not go with"),
    "beyond the end": (forged(samples_consumed=10**30), f"samples_consumed={10**30} does not go"),
    "steps beyond the end": (forged(step=7, samples_consumed=56), "step=7: the run has 6"),
    "a way back too far": (
        forged(samples_consumed=8 * 10**6, rewinds=1, skipped_steps=3),
        "samples_consumed=8000000 does not go with step=5",
    ),
    "a way back without skips": (
        forged(samples_consumed=64, rewinds=1),
        "skipped_steps=0 does not go with the skips",
    ),
    "a way back without samples": (
        forged(rewinds=1, skipped_steps=3),
        "samples_consumed=40 does not go with",
    ),
    "more skips than steps": (forged(skipped_steps=6), "skipped_steps=6 does not go with step=5"),
    "skips at the end alone": (forged(consecutive_skips=2), "skipped_steps=0 does not go with"),
    "a patience of ages": (
        forged(validations_without_improvement=99),
        "validations_without_improvement=99 does not go with",
    ),
    "rates of ages": (forged(learning_rate_reductions=6), "learning_rate_reductions=6 does not"),
    "finished early": (forged(finished=True), "finished at step 5 of 6, without early stopping"),
}


@pytest.mark.parametrize(("state", "said"), FORGED.values(), ids=FORGED)
def test_what_no_run_can_have_counted_is_named(state: TrainingState, said: str) -> None:
    found = contradiction(state, CONFIG, total_steps=6, updates=5)
    assert found is not None
    assert said in found


@pytest.mark.parametrize("updates", [0, 3, 6])
def test_updates_of_the_optimizer_are_those_of_the_steps(updates: int) -> None:
    state = forged(skipped_steps=1)
    found = contradiction(state, CONFIG, total_steps=6, updates=updates)
    assert found == f"its optimizer made {updates} updates, which does not go with step=5"
