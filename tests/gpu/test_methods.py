"""Every method on a device beside the CPU: losses of three steps, images, and no host waits."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest
import torch

from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.data.loader import TrainingLoader
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.tokenization import NoReports
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.training.engine.device import set_device_up
from distributed_pretrain.training.settings import TrainingConfig
from tests.gpu.devices import on_each_device
from tests.tiny.batches import random_batch, with_host_facts
from tests.tiny.methods import PROFILES, tiny_method, tiny_profile

STEPS = 3
CPU = torch.device("cpu")
TRAINED = [name for name in PROFILES if name.startswith("phantom_") and "untrained" not in name]
# The papers' own prove the tests' code on a CPU in every run of the default suite.
of_every_method = pytest.mark.parametrize(
    ("device", "name"),
    [
        *(pytest.param("cpu", name) for name in ("phantom_lovt", "phantom_limitr")),
        *(pytest.param("cuda", name, marks=pytest.mark.gpu) for name in TRAINED),
    ],
    indirect=["device"],
)


def losses(
    config: PretrainConfig, device: torch.device, *, lowered: bool, pack: bool = True
) -> list[float]:
    """Of small steps of gradient descent: Adam's signs would drive roundings apart."""
    method = tiny_method(config).train().to(device)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=1e-4)
    found = []
    for step in range(STEPS):
        whole = with_host_facts(random_batch(config, 6, seed=step)).to(device)
        (batch,) = whole.split([1], pack=pack)
        torch.manual_seed(step)
        with torch.autocast(device.type, torch.bfloat16, enabled=lowered):
            outputs = method(batch)
        loss = method.loss(outputs)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss))
    return found


@of_every_method
def test_three_steps_in_float32_have_the_losses_of_a_cpu(device: torch.device, name: str) -> None:
    set_device_up(TrainingConfig(tf32=False))
    config = tiny_profile(name)
    expected = losses(config, CPU, lowered=False, pack=False)
    assert losses(config, device, lowered=False) == pytest.approx(expected, rel=1e-4)


@of_every_method
def test_bf16_is_as_far_from_float32_as_on_a_cpu(device: torch.device, name: str) -> None:
    """Norms over a few samples make much of a rounding, in some methods more than in others."""
    config = tiny_profile(name)
    exact = torch.tensor(losses(config, CPU, lowered=False))
    errors = [
        float((torch.tensor(losses(config, where, lowered=True)) / exact - 1).abs().max())
        for where in (CPU, device)
    ]
    assert errors[0] < 0.2
    assert errors[1] < 2e-2 + 3 * errors[0]


@contextlib.contextmanager
def no_waits(device: torch.device) -> Iterator[None]:
    """On a GPU whatever makes the host wait raises."""
    if device.type != "cuda":
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


@of_every_method
def test_forward_losses_and_backward_do_not_wait_for_the_device(
    device: torch.device, name: str
) -> None:
    config = tiny_profile(name)
    method = tiny_method(config).train().to(device)
    (batch,) = with_host_facts(random_batch(config, 6)).to(device).split([1], pack=True)
    for _ in range(2):  # the first may make what later ones find
        with no_waits(device):
            with torch.autocast(device.type, torch.bfloat16):
                outputs = method(batch)
            method.loss(outputs)["total"].backward()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "shards"
    write_synthetic_shards(folder, studies={"train": 12}, studies_a_shard=12, longest_side_px=72)
    return folder


@on_each_device
def test_images_are_those_of_a_cpu(device: torch.device, shards: Path) -> None:
    set_device_up(TrainingConfig())  # with TF32, which must not reach them
    data = DataConfig(shards=shards, image_size_px=48, global_batch=6)
    split = ShardSplit(shards, "train", data.text_policy)
    loader = TrainingLoader(split, NoReports(), data)
    with closing(loader._host_batches(loader._plans(0))) as stream:
        for host in islice(stream, 2):
            here, there = loader._transform(host, CPU), loader._transform(host, device)
            assert there.images.device.type == device.type
            torch.testing.assert_close(there.images.cpu(), here.images, rtol=0, atol=1e-4)
