"""Every method's whole step on a GPU that is not there: no mixed devices, one late wait.

A wait of the host keeps it from launching what comes next: on a GPU a step then takes as long as
its launches. Walked is all that the trainer does between two batches, backwards by autograd's own
nodes; what kernels compute is for `make test-gpu`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distributed_pretrain.benchmark.fake_cuda import HostWaits, fake_cuda, moved
from distributed_pretrain.benchmark.fake_step import CUDA, LATE_READ, walk_step
from distributed_pretrain.pretrain.settings import PretrainConfig
from tests.tiny.batches import random_batch, with_host_facts
from tests.tiny.methods import PROFILES, tiny_method, tiny_profile

ROWS = 4
# Small tensors that are made on the host in every forward.
COPIES = {"limitr": {"models/image_encoder.py:real_rows"}}
TRAINED = [name for name in PROFILES if name.startswith("phantom_") and "untrained" not in name]


def changed(name: str, **training: Any) -> PretrainConfig:
    """The profile for a few rows, with changes to how it trains."""
    config = tiny_profile(name)
    changes = {"precision": "bf16"} | training
    return config.model_copy(
        update={
            "training": config.training.model_copy(update=changes),
            "data": config.data.model_copy(update={"global_batch": ROWS}),
        }
    )


def assert_one_late_wait(config: PretrainConfig, *, steps: int = 1) -> None:
    method = tiny_method(config)
    wanted = {name: each.dtype for name, each in method.named_parameters() if each.requires_grad}
    seen = walk_step(
        config, method, lambda: with_host_facts(random_batch(config, ROWS)).to(CUDA), steps=steps
    )
    assert dict(seen.waits) == {LATE_READ: 1}
    assert set(seen.copies) <= COPIES.get(config.method.name, set())
    assert seen.operations > 500
    state = {name: (each.device.type, each.dtype) for name, each in method.named_parameters()}
    assert {name: state[name] for name in wanted} == {
        name: ("cuda", dtype) for name, dtype in wanted.items()
    }


# A term more of a method that is among the others: `test_backwards_on_fake_cuda.py` has it, too.
OF_REGIONS = [name for name in TRAINED if name.endswith("_regions")]


def seldom(*names: str) -> list[Any]:
    """All that are trained, `names` with the slow tests."""
    return [pytest.param(name, marks=pytest.mark.slow if name in names else ()) for name in TRAINED]


@pytest.mark.usefixtures("two_ranks")
@pytest.mark.parametrize("name", seldom(*OF_REGIONS))
def test_a_step_of_several_ranks_waits_for_its_numbers_alone(name: str) -> None:
    assert_one_late_wait(changed(name))


@pytest.mark.parametrize("name", seldom(*(name for name in TRAINED if name != "phantom_simclr")))
def test_steps_of_one_gpu_wait_for_the_last_numbers_alone(name: str) -> None:
    assert_one_late_wait(changed(name, precision="float32"), steps=2)


def test_nothing_else_waits_with_cached_gradients_scaled_losses_and_norms_by_term() -> None:
    training = {"accumulation": "exact", "accumulation_steps": 2, "clip_gradient_norm": 1.0}
    config = changed("phantom_convirt", precision="fp16", gradient_norms_every_steps=1, **training)
    method = tiny_method(config)
    seen = walk_step(config, method, lambda: with_host_facts(random_batch(config, ROWS)).to(CUDA))
    # The scale of the losses comes with the numbers.
    assert dict(seen.waits) == {LATE_READ: 2}


def test_losses_leave_in_float32() -> None:
    config = tiny_profile("phantom_clip")
    method, batch = tiny_method(config).train(), with_host_facts(random_batch(config, ROWS))
    with fake_cuda(), HostWaits():
        moved(method)
        with torch.autocast("cuda", torch.bfloat16):
            outputs = method(batch.to(CUDA))
        terms = method.loss(outputs)
    assert {(term.device.type, term.dtype) for term in terms.values()} == {("cuda", torch.float32)}


def test_a_mask_that_only_the_gpu_knows_is_a_wait() -> None:
    config = tiny_profile("phantom_clip")
    method, batch = tiny_method(config).train(), random_batch(config, ROWS)
    with fake_cuda():
        moved(method)
        with HostWaits() as seen:
            method(batch.to(CUDA))
    assert set(seen.waits) == {"models/image_encoder.py:real_rows"}


@pytest.mark.usefixtures("two_ranks")
@pytest.mark.parametrize("name", ["phantom_limitr", "phantom_gloria"])
def test_only_how_long_other_ranks_reports_are_is_waited_for(name: str) -> None:
    """Which blocks of pairs there are is for the host to say, and it counts its own words alone."""
    config = tiny_profile(name)
    changes = {"external_negatives": "global"}
    config = config.model_copy(update={"method": config.method.model_copy(update=changes)})
    method, batch = tiny_method(config).train(), with_host_facts(random_batch(config, ROWS))
    with fake_cuda():
        moved(method)
        with HostWaits() as seen:
            (on_gpu,) = batch.to(CUDA).split([1], pack=True)
            method.loss(method(on_gpu))["total"].backward()
    assert set(seen.waits) == {"ranks.py:gather_numbers"}
