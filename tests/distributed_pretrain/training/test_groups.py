"""Micro-batches whose groups are normalised and compared alone: equal to the plain way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data_shards.errors import InputError
from data_shards.profiles import first_difference, validate
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.pretrain import build
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.training.engine.ddp import Engine, build_optimizer
from distributed_pretrain.training.gradients import accumulate_gradients
from distributed_pretrain.training.settings import OptimizerConfig, TrainingConfig
from tests.tiny.batches import as_double, random_batch, with_host_facts
from tests.tiny.methods import PROFILES, tiny_method, tiny_profile

# The others' terms beyond the papers are compared in the same way.
METHODS = [
    name
    for name in PROFILES
    if name.startswith("phantom_") and ("regions" not in name or "lovt" in name)
    if "untrained" not in name
]
ROWS, GROUPS = 12, 3


def after_gradients(
    method: Method, batch: Batch, groups: Sequence[int], *, pack: bool = False
) -> dict[str, Tensor]:
    """Loss terms, gradients and running statistics, with so many groups in each micro-batch."""
    engine = Engine(TrainingConfig(accumulation="plain"))
    engine.prepare(method.train().double(), build_optimizer(OptimizerConfig(), method))
    method.start_step(epoch=1)
    found = accumulate_gradients(
        engine,
        batch.split(groups, pack=pack),
        exact=False,
        seed=0,
        measure_norms=False,
        groups=groups,
    )
    state = {f"term {name}": each for name, each in found.terms.items()}
    state |= {
        f"gradient {name}": p.grad for name, p in method.named_parameters() if p.grad is not None
    }
    return state | dict(method.named_buffers())


@pytest.mark.parametrize("name", METHODS)
def test_groups_of_one_forward_are_as_micro_batches_of_their_own(name: str) -> None:
    """With their reports packed, and lengths that the host knows."""
    config = tiny_profile(name, norm="local" if name == "phantom_byol" else "sync")
    batch = as_double(random_batch(config, ROWS))
    if batch.lateral is not None:
        # Of the groups one has every lateral, one has none, and one has some.
        present = torch.tensor([True] * 4 + [False] * 4 + [True, False, False, True])
        batch = replace(batch, lateral=replace(batch.lateral, mask=present))
    wanted = after_gradients(tiny_method(config), batch, [1] * GROUPS)
    known = with_host_facts(batch)
    for groups in ([GROUPS], [2, 1]):
        found = after_gradients(tiny_method(config), known, groups, pack=True)
        assert found.keys() == wanted.keys()
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_a_run_in_uneven_micro_batches_takes_the_steps_of_one_in_even_ones(tmp_path: Path) -> None:
    """Through loader, trainer and log, in another number of micro-batches than of groups."""
    shards = tmp_path / "shards"
    write_synthetic_shards(
        shards, studies={"train": 12, "validate": 4}, studies_a_shard=12, longest_side_px=72
    )
    tiny = tiny_profile("phantom_lovt", norm="sync")
    found = []
    for pieces in (3, 2):
        values = tiny.model_dump()
        values |= {"run_folder": tmp_path / str(pieces), "vocabulary_size": 100}
        values["data"] |= {"shards": shards, "image_size_px": 64, "global_batch": 6}
        values["training"] |= {
            "accumulation": "plain",
            "accumulation_steps": pieces,
            "negatives_from": 2,
            "max_steps": 2,
            "validate_every_steps": 2,
            "pictures": False,
        }
        run = PretrainConfig.model_validate(values)
        assert build.pretrain(run)
        lines = RunFolder(run.run_folder).read_metrics()
        found.append([(line["step"], line["split"], line["total"]) for line in lines])
    even, uneven = found
    assert [each[:2] for each in uneven] == [(1, "train"), (2, "train"), (2, "validate")]
    # Adam drives roundings apart.
    assert [each[2] for each in uneven] == pytest.approx([each[2] for each in even], rel=1e-3)
    assert uneven[0][2] == pytest.approx(even[0][2], rel=1e-5)


def config(batch: int, **training: Any) -> PretrainConfig:
    values = {
        "run_folder": "run",
        "data": {"shards": "shards", "global_batch": batch},
        "method": {"name": "lovt"},
        "training": training,
    }
    return validate(PretrainConfig, values, where="test")


def test_groups_keep_the_recipe_of_micro_batches() -> None:
    plain = config(512, accumulation="plain", accumulation_steps=16)
    grouped = config(512, accumulation="plain", accumulation_steps=4, negatives_from=32)
    uneven = config(512, accumulation="plain", accumulation_steps=3, negatives_from=32)
    for each, groups in ((plain, (1,) * 16), (grouped, (4,) * 4), (uneven, (6, 5, 5))):
        assert each.training.compared_parts(512) == each.training.ordered_parts(512) == 16
        assert each.training.groups(512) == groups
        each.check_ranks(8)
    wider = config(512, accumulation="plain", accumulation_steps=2, negatives_from=32)
    assert first_difference(grouped.deciding(), wider.deciding()) is None
    assert config(512, accumulation_steps=4).training.groups(512) == (1,) * 4


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"negatives_from": 32}, "with accumulation=exact every sample is a negative"),
        (
            {"negatives_from": 48, "accumulation": "plain", "accumulation_steps": 4},
            "negatives_from=48 does not divide data.global_batch=512",
        ),
        (
            {"negatives_from": 256, "accumulation": "plain", "accumulation_steps": 4},
            "there are 2 groups, too few for training.accumulation_steps=4",
        ),
    ],
)
def test_groups_that_cannot_be_are_refused_in_a_line(training: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        config(512, **training)


def test_ranks_that_cannot_share_a_group_are_refused() -> None:
    grouped = config(512, accumulation="plain", accumulation_steps=4, negatives_from=4)
    with pytest.raises(InputError, match="8 ranks cannot hold equal parts of a group"):
        grouped.check_ranks(8)
