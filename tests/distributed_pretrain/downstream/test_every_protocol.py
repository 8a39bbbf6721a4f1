"""What every downstream protocol must do: a new YAML is tested by being there."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from data_shards.command_line import DONE
from data_shards.errors import InputError
from data_shards.profiles import load_profile
from distributed_pretrain.downstream.protocols.base import HeadSizes, LocalizedConfig
from distributed_pretrain.downstream.protocols.catalog import AnyProtocolConfig
from distributed_pretrain.downstream.run import run_downstream
from distributed_pretrain.downstream.settings import DownstreamConfig
from distributed_pretrain.methods.objective import Method, Objective
from distributed_pretrain.run_folder.folder import RunFolder
from tests.distributed_pretrain.downstream.phantom_heads import drawn_batch, tiny_encoder
from tests.paths import CONFIGS
from tests.tiny.batches import with_padded_samples
from tests.tiny.sizes import IMAGE_SIZE_PX

# Those of one run; a list of tasks is none.
PROFILES = {
    path.stem: path
    for path in sorted((CONFIGS / "downstream").glob("*.yaml"))
    if "protocol:" in path.read_text()
}


def profile_of(name: str) -> DownstreamConfig:
    return load_profile(DownstreamConfig, PROFILES[name])


def test_every_protocol_has_a_profile() -> None:
    union, _ = get_args(AnyProtocolConfig)
    protocols = {settings.model_fields["name"].default for settings in get_args(union)}
    assert {profile_of(name).protocol.name for name in PROFILES} == protocols


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_trains_a_step_and_is_judged(
    name: str, drawn_shards: Path, tiny_run: Path, tmp_path: Path
) -> None:
    protocol = profile_of(name).protocol
    overrides = (
        f"encoder.run_folder={tiny_run}",
        f"run_folder={tmp_path / 'run'}",
        f"data.shards={drawn_shards}",
        f"data.image_size_px={IMAGE_SIZE_PX}",
        "data.global_batch=8",
        "training.max_steps=1",
        "training.validate_every_steps=1",
        *(["protocol.warmup_steps=0"] if isinstance(protocol, LocalizedConfig) else []),
    )
    assert run_downstream(PROFILES[name], overrides) == DONE
    run = RunFolder(tmp_path / "run")
    trained, validated = run.read_metrics()
    assert math.isfinite(trained["total"])
    assert profile_of(name).training.best_metric in validated
    judged = json.loads(run.evaluation("test", "best").read_text())
    assert all(math.isfinite(value) for value in judged.values())
    assert profile_of(name).training.best_metric in judged


@pytest.mark.parametrize("name", PROFILES)
def test_twenty_steps_lower_the_loss_and_reach_every_trained_parameter(name: str) -> None:
    encoder, head = tiny_head(name)
    before = copy.deepcopy(encoder.image_encoder.state_dict())
    batch = drawn_batch(6, classes=len(profile_of(name).classes))
    trained = {n: p for n, p in head.train().named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    totals = []
    for step in range(20):
        # Behind any warm-up.
        head.start_step(epoch=step, step=1000 + step)
        terms = head.loss(head(batch))
        optimizer.zero_grad()
        terms["total"].backward()
        head.after_backward()
        assert [n for n, p in trained.items() if p.grad is None] == []
        optimizer.step()
        totals.append(terms["total"].item())
    assert set(terms) == {"total", *head.term_weights}
    assert totals[-1] < 0.95 * totals[0]
    after = head.get_submodule("image_encoder").state_dict()
    stays = all(after[key].equal(value) for key, value in before.items())
    assert stays == profile_of(name).protocol.is_frozen, "statistics too"


@pytest.mark.parametrize("name", PROFILES)
def test_padded_samples_change_nothing(name: str) -> None:
    batch = drawn_batch(5, classes=len(profile_of(name).classes))
    totals = []
    for each in (batch, with_padded_samples(batch, 3)):
        _, head = tiny_head(name)
        totals.append(head.train().loss(head(each))["total"].item())
    assert totals[1] == pytest.approx(totals[0], rel=1e-5)


@pytest.mark.parametrize("name", PROFILES)
def test_kept_features_give_the_same_as_the_images(name: str) -> None:
    if not profile_of(name).protocol.is_frozen:
        pytest.skip("its encoder is trained")
    batch = drawn_batch(4, classes=len(profile_of(name).classes))
    _, head = tiny_head(name)
    head.eval()
    expected = head.loss(head(batch))["total"]
    empty = batch.images[:, :, :0, :0]
    kept = replace(batch, images=empty, features=head.features_of(batch))
    assert head.loss(head(kept))["total"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", PROFILES)
def test_without_its_targets_a_profile_says_which_key_is_missing(name: str) -> None:
    wanted = profile_of(name).protocol.TARGETS
    with pytest.raises(InputError, match=rf"data\.{wanted}=\[\]: protocol.name=.* predicts"):
        load_profile(DownstreamConfig, PROFILES[name], [f"data.{wanted}=[]"])


def tiny_head(name: str) -> tuple[Method, Objective]:
    """An encoder and, by the profile's protocol, its head for the profile's classes."""
    encoder, config = tiny_encoder(), profile_of(name)
    torch.manual_seed(0)
    return encoder, config.protocol.build(encoder, HeadSizes(len(config.classes), IMAGE_SIZE_PX))
