"""Every method on a GPU that is not there: no mixed devices, and no waits where the host knows.

A wait of the host keeps it from launching what comes next: on a GPU a step then takes as long as
its launches. Forwards and losses are walked here; backwards want a driver (`make test-gpu`).
"""

from __future__ import annotations

import pytest
import torch
from torch import distributed

from distributed_pretrain import ranks
from distributed_pretrain.benchmark.fake_cuda import HostWaits, fake_cuda, moved
from tests.tiny.batches import random_batch, with_host_facts
from tests.tiny.methods import PROFILES, tiny_method, tiny_profile

# Small tensors that are made on the host in every forward.
COPIES = {
    "pixelpro": {"losses/pixel_propagation.py:_centres_in_image"},
    "limitr": {"models/image_encoder.py:real_rows"},
}
TRAINED = [name for name in PROFILES if name.startswith("phantom_") and "untrained" not in name]


@pytest.fixture
def two_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were another rank, which sends what no fake tensor holds."""
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(distributed, "all_gather_into_tensor", lambda *_: None)
    monkeypatch.setattr(ranks, "all_reduce", lambda values, **_: values)


@pytest.mark.parametrize("name", TRAINED)
def test_a_step_stays_on_the_gpu_and_the_host_waits_for_nothing(name: str) -> None:
    _walk(name, "float32")


@pytest.mark.usefixtures("two_ranks")
@pytest.mark.parametrize("name", TRAINED)
def test_a_step_of_several_ranks_waits_for_nothing_either(name: str) -> None:
    _walk(name, "bf16")


def _walk(name: str, precision: str) -> None:
    config = tiny_profile(name)
    method, batch = tiny_method(config).train(), with_host_facts(random_batch(config, 4))
    with fake_cuda():
        moved(method)
        (on_gpu,) = batch.to(torch.device("cuda")).split(1, pack=True)
        with HostWaits() as seen:
            with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
                outputs = method(on_gpu)
            terms = method.loss(outputs)
        assert {(term.device.type, term.dtype) for term in terms.values()} == {
            ("cuda", torch.float32)
        }
    assert not seen.waits
    assert set(seen.copies) <= COPIES.get(config.method.name, set())
    assert seen.operations > 100


def test_a_mask_that_only_the_gpu_knows_is_a_wait() -> None:
    config = tiny_profile("phantom_clip")
    method, batch = tiny_method(config).train(), random_batch(config, 4)
    with fake_cuda():
        moved(method)
        with HostWaits() as seen:
            method(batch.to(torch.device("cuda")))
    assert set(seen.waits) == {"models/image_encoder.py:real_rows"}


@pytest.mark.usefixtures("two_ranks")
@pytest.mark.parametrize("name", ["phantom_limitr", "phantom_gloria"])
def test_only_how_long_other_ranks_reports_are_is_waited_for(name: str) -> None:
    """Which blocks of pairs there are is for the host to say, and it counts its own words alone."""
    config = tiny_profile(name)
    changes = {"external_negatives": "global"}
    config = config.model_copy(update={"method": config.method.model_copy(update=changes)})
    method, batch = tiny_method(config).train(), with_host_facts(random_batch(config, 4))
    with fake_cuda():
        moved(method)
        (on_gpu,) = batch.to(torch.device("cuda")).split(1, pack=True)
        with HostWaits() as seen:
            method.loss(method(on_gpu))
    assert set(seen.waits) == {"ranks.py:gather_numbers"}
