"""Every method on a GPU that is not there: no mixed devices, and no waits where the host knows.

A wait of the host keeps it from launching what comes next: on a GPU a step then takes as long as
its launches. Forwards and losses are walked here; backwards want a driver (`make test-gpu`).
"""

from __future__ import annotations

import pytest
import torch

from distributed_pretrain.benchmark.fake_cuda import HostWaits, fake_cuda, moved
from tests.tiny.batches import random_batch, with_host_facts
from tests.tiny.methods import PROFILES, tiny_method, tiny_profile

# Small tensors that are made on the host in every forward.
COPIES = {
    "pixelpro": {"losses/pixel_propagation.py:_centres_in_image"},
    "limitr": {"models/image_encoder.py:real_rows"},
}
TRAINED = [name for name in PROFILES if name.startswith("phantom_") and "untrained" not in name]


@pytest.mark.parametrize("precision", ["bf16", "float32"])
@pytest.mark.parametrize("name", TRAINED)
def test_a_step_stays_on_the_gpu_and_the_host_waits_for_nothing(name: str, precision: str) -> None:
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
