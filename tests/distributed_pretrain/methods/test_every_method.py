"""What every profile and method must do: a new YAML is tested by being there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
import torch

from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.methods.catalog import AnyMethodConfig
from distributed_pretrain.pretrain import build
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.training.flops import StepFlops
from tests.tiny.batches import as_double, random_batch, with_padded_samples
from tests.tiny.methods import PROFILES, state_after_step, tiny_method, tiny_profile

LABELS = ("Atelectasis", "Edema")
PHANTOM_PROFILES = [name for name in PROFILES if name.startswith("phantom_")]
TRAINED_PROFILES = [name for name in PHANTOM_PROFILES if name != "phantom_untrained"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_synthetic_shards(
        folder,
        studies={"train": 16, "validate": 10},
        studies_a_shard=8,
        views=("PA", "L"),
        longest_side_px=72,
        labels=LABELS,
    )
    return folder


def test_every_method_has_a_profile_for_the_phantom() -> None:
    union, _ = get_args(AnyMethodConfig)
    methods = {settings.model_fields["name"].default for settings in get_args(union)}
    assert {tiny_profile(name).method.name for name in PHANTOM_PROFILES} == methods


# Those of a share of the patients are others' in all that is tried here.
OF_A_SHARE = [name for name in PROFILES if name.endswith("_30")]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in OF_A_SHARE else ()) for name in PROFILES],
)
def test_a_profile_trains_one_real_step_with_small_encoders(
    name: str, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything else is as in the file: method, optimizer, schedule, precision, augmentation.

    Operations are counted and pictures are drawn once a method, with its phantom's profile.
    """
    profile = tiny_profile(name)
    is_first = name in PHANTOM_PROFILES and not name.endswith("_regions")
    if not is_first:
        monkeypatch.setattr(build, "flops_of", lambda *_: StepFlops())
    values = profile.model_dump()
    pieces = min(2, profile.training.accumulation_steps)
    values["run_folder"] = tmp_path / "run"
    values["vocabulary_size"] = 100
    values["data"] |= {
        "shards": shards,
        "image_size_px": 64,
        "global_batch": 2 * pieces,
        "patient_fraction": 1.0,
        "labels": LABELS if profile.data.labels else (),
    }
    values["training"] |= {
        "device": "any",
        "accumulation_steps": pieces,
        "negatives_from": 2 if profile.training.negatives_from else None,
        "max_steps": 1,
        "validate_every_steps": 1,
        "distributed": {"name": "ddp"},
        "pictures": is_first,
    }
    config = PretrainConfig.model_validate(values)
    assert build.pretrain(config)
    lines = RunFolder(config.run_folder).read_metrics()
    if config.method.name != "untrained":
        assert [(line["step"], line["split"]) for line in lines] == [(1, "train"), (1, "validate")]
        assert all(math.isfinite(float(line["total"])) for line in lines)
        assert config.training.best_metric in lines[1]
    assert (config.run_folder / "checkpoints" / "best" / "COMPLETE").exists()


@pytest.mark.parametrize("name", TRAINED_PROFILES)
def test_twenty_steps_lower_the_loss_and_reach_every_parameter(name: str) -> None:
    config = tiny_profile(name)
    method, batch = tiny_method(config).train(), random_batch(config, 6)
    trained = {n: p for n, p in method.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3)
    totals = []
    for step in range(20):
        torch.manual_seed(0)
        method.start_step(epoch=step // 2)
        terms = method.loss(method(batch))
        optimizer.zero_grad()
        terms["total"].backward()
        assert [n for n, p in trained.items() if p.grad is None] == []
        optimizer.step()
        method.after_update(progress=step / 20)
        totals.append(terms["total"].item())
    assert set(terms) == {"total", *method.term_weights}
    assert totals[-1] < totals[0] - 0.05 * abs(totals[0])


@pytest.mark.parametrize("name", TRAINED_PROFILES)
def test_padded_samples_change_nothing(name: str) -> None:
    config = tiny_profile(name)
    batch = as_double(random_batch(config, 5))
    expected = state_after_step(tiny_method(config).double().train(), batch)
    padded = with_padded_samples(batch, 3)
    found = state_after_step(tiny_method(config).double().train(), padded)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-7, atol=1e-9, msg=key)


@pytest.mark.parametrize("name", TRAINED_PROFILES)
def test_a_single_study_has_a_loss(name: str) -> None:
    config = tiny_profile(name, norm="group")
    for row in range(2):  # the second has no lateral
        batch = random_batch(config, 2).rows(slice(row, row + 1))
        terms = state_after_step(tiny_method(config).train(), batch)
        assert all(bool(value.isfinite().all()) for value in terms.values())


@pytest.mark.parametrize("name", TRAINED_PROFILES)
def test_bfloat16_autocast_gives_float32_losses_near_the_full_ones(name: str) -> None:
    config = tiny_profile(name)
    batch = random_batch(config, 6)
    method = tiny_method(config).train()
    torch.manual_seed(0)
    full = method.loss(method(batch))
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = method.loss(method(batch))
    lowered["total"].backward()
    for term, value in full.items():
        assert lowered[term].dtype == torch.float32
        assert lowered[term].item() == pytest.approx(value.item(), rel=0.05, abs=0.02)
