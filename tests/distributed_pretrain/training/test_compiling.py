"""Encoders are compiled whole, in few shapes; and the passes of exact accumulation are compared."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from data_shards.errors import InputError
from distributed_pretrain.methods.objective import Contrasted
from distributed_pretrain.training.compiling import check_passes, compile_encoders
from distributed_pretrain.training.engine.ddp import Engine, build_optimizer
from distributed_pretrain.training.gradients import accumulate_gradients
from distributed_pretrain.training.settings import OptimizerConfig, TrainingConfig
from tests.paths import ROOT
from tests.tiny.batches import pairs_of_sentences
from tests.tiny.methods import tiny_lovt

# In a process of its own: the shape checks of the tests would be compiled with the layers.
_SCRIPT = """
import json, sys
import torch
from torch._dynamo.utils import counters
from distributed_pretrain.training.compiling import compile_encoders
from tests.tiny.batches import random_batch, with_padded_reports
from tests.tiny.methods import tiny_method, tiny_profile
from dataclasses import replace

name = sys.argv[1]
config = tiny_profile(name)
losses, graphs = [], []
for compiled in (False, True):
    method = tiny_method(config).train()
    if compiled:
        compile_encoders(method, walks_by_term=False, backend="eager")
    for padding in (0, 5, 30, 60, 62):
        batch = with_padded_reports(random_batch(config, 4), tokens=padding)
        batch = replace(batch, real=tuple(batch.sample_mask.tolist()))
        total = method.loss(method(batch))["total"]
        total.backward()
        losses.append(float(total))
        graphs.append(counters["stats"]["unique_graphs"])
json.dump({"losses": losses, "graphs": graphs, "breaks": dict(counters["graph_break"])}, sys.stdout)
"""

# Packed reports, in so many rows as it takes; of fp16 with the scale of its losses.
_PACKED_SCRIPT = """
import json, sys
import torch
from torch._dynamo.utils import counters
from distributed_pretrain.training.compiling import compile_encoders
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.settings import TrainingConfig
from tests.tiny.batches import batch_of, with_host_facts
from tests.tiny.methods import tiny_method, tiny_profile

name, precision = sys.argv[1:]
config = tiny_profile(name)
laterals = [True] * 8 if config.data.views == "frontal_lateral" else None
batches = []
rows_of_3, rows_of_8 = (6, 4, 5, 3, 6, 4, 5, 6), (14,) * 8
rows_of_4, rows_of_2 = (20, 12, 9, 14, 11, 3, 8, 7), (20, *(2,) * 7)
for sentences in (rows_of_3, rows_of_8, rows_of_4, rows_of_2):
    batch = batch_of([[(2, 1, 1)] * count for count in sentences], laterals=laterals)
    batches += with_host_facts(batch).split([1], pack=True)
found = {"shapes": [(each.report.packing.rows, each.report.packing.width) for each in batches]}
engine = Engine(TrainingConfig(precision=precision))
for compiled in (False, True):
    torch.manual_seed(0)
    method = tiny_method(config).train()
    engine.prepare(method, torch.optim.SGD(method.parameters(), lr=0.0))
    if compiled:
        compile_encoders(method, walks_by_term=False, backend="aot_eager")
    steps = found["compiled" if compiled else "eager"] = []
    for batch in batches:
        total = method.loss(engine.forward(batch))["total"]
        engine.backward(total)
        norm = engine.gradient_norm()
        steps.append((float(total), float(norm), counters["stats"]["unique_graphs"]))
        engine.drop_gradients()
found["breaks"] = dict(counters["graph_break"])
json.dump(found, sys.stdout)
"""


def counted(script: str, *words: str) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "encoders"),
    [("phantom_lovt", 2), ("phantom_limitr", 3)],
)
def test_each_encoder_is_one_graph_and_one_more_for_a_width_of_the_list(
    name: str, encoders: int
) -> None:
    """Reports of 14, 19 and 44 tokens are 64 wide, those of 74 and 76 are 96."""
    found = counted(_SCRIPT, name)
    assert found["breaks"] == {}
    assert found["graphs"] == [0] * 5 + [encoders] * 3 + [encoders + 1] * 2
    losses = found["losses"]
    assert losses[5:] == pytest.approx(losses[:5], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision"), [("phantom_lovt", "float32"), ("phantom_limitr", "fp16")]
)
def test_packed_reports_are_one_graph_a_width_whatever_their_rows(
    name: str, precision: str
) -> None:
    """A BERT takes minutes to compile, and reports fill another number of rows in each batch.

    The trunk of as many laterals as frontals is the same graph.
    """
    found = counted(_PACKED_SCRIPT, name, precision)
    assert found["breaks"] == {}
    assert found["shapes"] == [[3, 64], [8, 64], [4, 96], [2, 96]]
    assert [step[2] for step in found["compiled"]] == [2, 2, 3, 3]
    for step, eager in zip(found["compiled"], found["eager"], strict=True):
        assert step[:2] == pytest.approx(eager[:2], rel=1e-4)


def test_what_has_no_encoder_is_not_compiled() -> None:
    objective: Any = nn.Linear(2, 2)
    with pytest.raises(InputError, match="no encoder that could be compiled"):
        compile_encoders(objective, walks_by_term=False)


def test_passes_with_other_dropout_are_refused() -> None:
    torch.manual_seed(0)
    rows = torch.randn(8, 4)
    check_passes(Contrasted({"image": rows}), Contrasted({"image": rows * (1 + 1e-5)}))
    dropped = torch.nn.functional.dropout(rows, 0.1)
    with pytest.raises(InputError, match="the two passes of exact accumulation differ by"):
        check_passes(Contrasted({"image": rows}), Contrasted({"image": dropped}))


def test_the_first_step_alone_compares_its_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, method = Engine(TrainingConfig()), tiny_lovt()
    engine.prepare(method, build_optimizer(OptimizerConfig(), method))
    compared: list[int] = []

    def noted(first: Contrasted, second: Contrasted) -> None:
        compared.append(len(first.rows["image"]))
        check_passes(first, second)

    monkeypatch.setattr("distributed_pretrain.training.gradients.check_passes", noted)
    engine.compares_passes = True
    for _ in range(2):
        batch = pairs_of_sentences(1, 2, 3, 1)
        accumulate_gradients(engine, batch.split([1, 1]), exact=True, seed=0, measure_norms=False)
    assert compared == [2, 2]
