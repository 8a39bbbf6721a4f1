"""DeepSpeed on gloo ranks: skipped steps, clipping, and states that change engines, in float32.

Its gradients over ten steps stand in test_gradient_equality.
"""

from __future__ import annotations

import functools
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.distributed.deepspeed_on_cpu import run_command
from tests.distributed.ranks import Ranks, start_command, start_ranks
from tests.distributed.test_resume_on_ranks import EXACT_SPLIT, STEPS, decided
from tests.distributed.zero_on_ranks import CLIP_NORM, OneProcess, run_stages
from tests.processor import bound

# One worker: its fork server imports the product once.
pytestmark = [pytest.mark.xdist_group("ranks"), pytest.mark.timeout(400)]

State = dict[str, Any]
Seen = dict[int, dict[str, Any]]
Launch = tuple[int, tuple[int, ...]]
# Ranks, and the stages they go through: a launch costs the import of DeepSpeed.
LAUNCHES: list[Launch] = [(2, (1, 2)), (2, (0, 3)), (1, (0, 1, 2, 3))]
CASES = [
    pytest.param(launch, stage, marks=[] if launch == LAUNCHES[0] else [pytest.mark.slow])
    for launch in LAUNCHES
    for stage in launch[1]
]
LAUNCHED_ALONE = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",
}


@pytest.fixture(scope="module")
def one_process() -> dict[str, Any]:
    """States of plain torch after two steps (begun), three and four; gradients of the third."""
    run = OneProcess()
    fresh = run.state()
    run.step(0)
    run.step(1)
    begun = run.state()
    run.step(2)
    gradients, norm = run.gradients, run.norm
    run.step(3)
    ended = run.state()
    run = OneProcess()
    run.method.load_state_dict(begun["model"])
    run.step(0)
    return {
        "fresh": fresh["optimizer"],
        "begun": begun,
        "gradients": gradients,
        "norm": norm,
        "ended": ended,
        "without moments": run.state(),
    }


@pytest.fixture(scope="module")
def launch(
    one_process: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Launch], list[Seen]]:
    """What each rank of a launch saw; each launch is made once."""

    @functools.cache
    def run(ranks_and_stages: Launch) -> list[Seen]:
        world_size, stages = ranks_and_stages
        folder = tmp_path_factory.mktemp("zero")
        torch.save(one_process["begun"], folder / "begun.pt")
        start_ranks(
            run_stages,
            list(stages),
            folder,
            world_size=world_size,
            folder=folder,
            environment=LAUNCHED_ALONE if world_size == 1 else None,
        ).complete()
        paths = [folder / f"seen{rank}.pt" for rank in range(world_size)]
        return [torch.load(path, weights_only=False) for path in paths]

    return run


@pytest.fixture
def seen(launch: Callable[[Launch], list[Seen]], request: pytest.FixtureRequest) -> list[Seen]:
    """What each rank of the launch saw, by stage."""
    return launch(request.param)


def moments(state: State) -> dict[str, Tensor]:
    entries = state["optimizer"]["state"].items()
    return {f"{number} {name}": value for number, of in entries for name, value in of.items()}


def assert_same_state(ours: State, expected: State, *, tolerance: float) -> None:
    """Weights, running statistics, moments and the optimizer's settings."""
    torch.testing.assert_close(ours["model"], expected["model"], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(moments(ours), moments(expected), rtol=tolerance, atol=tolerance)
    assert ours["optimizer"]["param_groups"] == expected["optimizer"]["param_groups"]


@pytest.mark.parametrize(("seen", "stage"), CASES, indirect=["seen"])
class TestStage:
    def test_gradients_and_their_norm_are_those_of_one_process(
        self, stage: int, seen: list[Seen], one_process: dict[str, Any]
    ) -> None:
        expected, length = one_process["gradients"], one_process["norm"]
        assert length > 2 * CLIP_NORM
        for rank in seen:
            gradients = rank[stage]["gradients"]
            assert gradients.keys() == expected.keys()
            for name in expected:
                assert (gradients[name] - expected[name]).norm() < 1e-5 * length, name
            torch.testing.assert_close(rank[stage]["norm"].float(), length, rtol=1e-5, atol=0.0)
            assert rank[stage]["norm"] == seen[0][stage]["norm"]
            assert not rank[stage]["not finite"].isfinite()

    def test_clipped_steps_are_those_of_one_process(
        self, stage: int, seen: list[Seen], one_process: dict[str, Any]
    ) -> None:
        # Adam divides rounding by small moments: up to 4e-5 of a weight with AVX2.
        tolerance = bound(1e-5, elsewhere=1e-4)
        assert_same_state(seen[0][stage]["undisturbed"], one_process["ended"], tolerance=tolerance)

    def test_dropped_gradients_leave_no_trace(self, stage: int, seen: list[Seen]) -> None:
        for rank in seen:
            ours, expected = rank[stage]["dropped"], rank[stage]["undisturbed"]
            assert_same_state(ours, expected, tolerance=0.0)

    def test_a_loaded_state_comes_out_again(
        self, stage: int, seen: list[Seen], one_process: dict[str, Any]
    ) -> None:
        loaded, begun = seen[0][stage]["loaded"], one_process["begun"]
        assert_same_state(loaded, begun, tolerance=0.0)

    def test_before_the_first_step_there_are_no_moments(
        self, stage: int, seen: list[Seen], one_process: dict[str, Any]
    ) -> None:
        assert seen[0][stage]["fresh"]["state"] == one_process["fresh"]["state"] == {}
        ours, expected = seen[0][stage]["without moments"], one_process["without moments"]
        assert_same_state(ours, expected, tolerance=1e-5)

    def test_bf16_keeps_weights_and_the_sum_over_ranks_in_float32(
        self, stage: int, seen: list[Seen]
    ) -> None:
        assert seen[0][stage]["bf16 weights"] == {torch.float32}
        gradient = seen[0][stage]["bf16 gradient"]
        assert gradient.dtype == torch.float32
        # Of one rank's numbers each is a bf16 one; the mean of two mostly is not.
        rounded = gradient.bfloat16().float().eq(gradient).float().mean()
        assert rounded > 0.9 if len(seen) == 1 else rounded < 0.7

    def test_nothing_is_drawn_or_seeded(self, stage: int, seen: list[Seen]) -> None:
        torch.manual_seed(0)
        assert seen[0][stage]["drew"].equal(torch.rand(3))


@pytest.mark.slow
def test_ranks_without_gpus_are_refused_in_one_line(tiny_profile: Path, tmp_path: Path) -> None:
    ranks = start_command(
        "pretrain",
        tiny_profile,
        f"run_folder={tmp_path / 'run'}",
        "training.distributed.name=deepspeed",
        world_size=2,
        folder=tmp_path,
    )
    assert ranks.wait() == [2, 2]
    assert "error: training.distributed.name=deepspeed needs GPUs" in ranks.said(0)
    assert "Traceback" not in ranks.said(0)


@pytest.mark.slow
def test_a_run_goes_on_between_deepspeed_and_ddp(tiny_profile: Path, tmp_path: Path) -> None:
    """ZeRO 2 on two ranks, one process, ZeRO 1, ZeRO 3, one process: an uninterrupted run."""
    start(tiny_profile, tmp_path / "one").complete()
    turns = [("2", 2), (None, 4), ("1", 6), ("3", 8), (None, None)]
    for stage, last_step in turns:
        ranks = start(tiny_profile, tmp_path / "legs", stage=stage, last_step=last_step)
        if last_step is None:
            ranks.complete()
        else:
            assert set(ranks.wait()) == {75}, ranks.said(0)
            assert f"interrupted at step {last_step}: checkpoint saved" in ranks.said(0)
    ours, expected = decided(tmp_path / "legs"), decided(tmp_path / "one")
    for line, expected_line in zip(ours, expected, strict=True):
        assert line.pop("split") == expected_line.pop("split")
        assert line == pytest.approx(expected_line, rel=1e-4, abs=1e-5)
    # Moments that were lost on the way would lead elsewhere long before a loss shows it.
    begun, ended, legs = (
        weights(tmp_path / folder, step) for folder, step in (("one", 3), ("one", 12), ("legs", 12))
    )
    assert (legs - ended).norm() < 1e-3 * (ended - begun).norm()


def weights(folder: Path, step: int) -> Tensor:
    """All weights of one checkpoint, end to end."""
    path = folder / "run" / "checkpoints" / f"step_{step:08d}" / "model.safetensors"
    return torch.cat([tensor.double().flatten() for _, tensor in sorted(load_file(path).items())])


def start(
    profile: Path, folder: Path, *, stage: str | None = None, last_step: int | None = None
) -> Ranks:
    """`pretrain` with ZeRO on two ranks, or in one process; asked to stop after `last_step`."""
    arguments = [
        "pretrain",
        str(profile),
        f"run_folder={folder / 'run'}",
        *EXACT_SPLIT,
        f"training.max_steps={STEPS}",
        "training.gradient_norms_every_steps=null",
        "training.keep_checkpoints=12",
        # At 1e-3, weights 2e-6 apart after a step, which is rounding, have gradients 2e-3 apart
        # on any number of ranks: nothing could be compared after a few steps.
        "optimizer.learning_rate=1e-5",
        "optimizer.epsilon=1e-4",
    ]
    faults: dict[str, Any] = {}
    if last_step is not None:
        faults["signal"] = {"number": signal.SIGUSR2, "rank": 0, "step": last_step}
    if stage is None:
        return start_command(*arguments, world_size=1, folder=folder, faults=faults)
    arguments += [
        "training.distributed.name=deepspeed",
        f"training.distributed.zero_stage={stage}",
    ]
    environment = {"FAULTS": json.dumps(faults)}
    return start_ranks(run_command, arguments, world_size=2, folder=folder, environment=environment)
