"""What every downstream protocol must do: a new YAML is tested by being there."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import get_args

import pytest
import torch

from data_shards.command_line import DONE
from data_shards.errors import InputError
from data_shards.profiles import load_profile
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.downstream.protocols.catalog import AnyProtocolConfig
from distributed_pretrain.downstream.run import run_downstream
from distributed_pretrain.downstream.settings import DownstreamConfig
from distributed_pretrain.methods.objective import Method, Objective
from distributed_pretrain.pretrain.build import pretrain
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.folder import RunFolder
from tests.paths import CONFIGS
from tests.tiny.batches import random_batch, with_padded_samples
from tests.tiny.methods import tiny_method, tiny_profile

PROFILES = {path.stem: path for path in sorted((CONFIGS / "downstream").glob("*.yaml"))}
LABELS = ("Atelectasis", "Edema")


@pytest.fixture(scope="module")
def pretrained(tiny_profile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run`, a small encoder's, and `shards`, which have labels."""
    folder = tmp_path_factory.mktemp("encoder")
    write_synthetic_shards(
        folder / "shards",
        studies={"train": 16, "validate": 8, "test": 8},
        studies_a_shard=8,
        longest_side_px=72,
        labels=LABELS,
    )
    asked = [f"run_folder={folder / 'run'}", "training.max_steps=1", "training.pictures=false"]
    assert pretrain(load_profile(PretrainConfig, tiny_profile, asked))
    return folder


def test_every_protocol_has_a_profile() -> None:
    union, _ = get_args(AnyProtocolConfig)
    protocols = {settings.model_fields["name"].default for settings in get_args(union)}
    profiles = [load_profile(DownstreamConfig, path) for path in PROFILES.values()]
    assert {profile.protocol.name for profile in profiles} == protocols


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_trains_a_step_and_is_judged(name: str, pretrained: Path, tmp_path: Path) -> None:
    overrides = (
        f"encoder.run_folder={pretrained / 'run'}",
        f"run_folder={tmp_path / 'run'}",
        f"data.shards={pretrained / 'shards'}",
        f"data.labels={json.dumps(LABELS)}",
        "data.image_size_px=64",
        "data.global_batch=4",
        "training.max_steps=1",
        "training.validate_every_steps=1",
    )
    assert run_downstream(PROFILES[name], overrides) == DONE
    run = RunFolder(tmp_path / "run")
    trained, validated = run.read_metrics()
    assert math.isfinite(trained["total"])
    assert load_profile(DownstreamConfig, PROFILES[name]).training.best_metric in validated
    judged = json.loads(run.evaluation("test", "best").read_text())
    assert all(math.isfinite(value) for value in judged.values())
    assert load_profile(DownstreamConfig, PROFILES[name]).training.best_metric in judged


@pytest.mark.parametrize("name", PROFILES)
def test_twenty_steps_lower_the_loss_and_reach_every_trained_parameter(name: str) -> None:
    config, (encoder, head) = tiny_profile("phantom_chexpert"), tiny_head(name)
    before = copy.deepcopy(encoder.image_encoder.state_dict())
    batch = random_batch(config, 6)
    trained = {n: p for n, p in head.train().named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    totals = []
    for step in range(20):
        head.start_step(epoch=step)
        terms = head.loss(head(batch))
        optimizer.zero_grad()
        terms["total"].backward()
        assert [n for n, p in trained.items() if p.grad is None] == []
        optimizer.step()
        totals.append(terms["total"].item())
    assert set(terms) == {"total", *head.term_weights}
    assert totals[-1] < 0.95 * totals[0]
    if not any(parameter.startswith("image_encoder.") for parameter in trained):
        after = head.get_submodule("image_encoder").state_dict()
        assert all(after[key].equal(value) for key, value in before.items()), "statistics too"


@pytest.mark.parametrize("name", PROFILES)
def test_padded_samples_change_nothing(name: str) -> None:
    batch = random_batch(tiny_profile("phantom_chexpert"), 5)
    totals = []
    for each in (batch, with_padded_samples(batch, 3)):
        _, head = tiny_head(name)
        totals.append(head.train().loss(head(each))["total"].item())
    assert totals[1] == pytest.approx(totals[0], rel=1e-5)


@pytest.mark.parametrize("name", PROFILES)
def test_without_labels_a_protocol_of_labels_says_which_key_is_missing(name: str) -> None:
    protocol = load_profile(DownstreamConfig, PROFILES[name]).protocol
    with pytest.raises(InputError, match=r"data\.labels=\[\]"):
        protocol.build(tiny_method(tiny_profile("phantom_clip")), classes=0)


def tiny_head(name: str) -> tuple[Method, Objective]:
    """An encoder and, by the profile's protocol, its head for the labels of `random_batch`."""
    config = tiny_profile("phantom_chexpert")
    encoder = tiny_method(config)
    protocol = load_profile(DownstreamConfig, PROFILES[name]).protocol
    return encoder, protocol.build(encoder, classes=len(config.data.labels))
