"""The distance of pairs: none where they agree, 4 where they are opposite."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from distributed_pretrain.measures.base import Context
from distributed_pretrain.measures.pair_distance import PairDistance
from tests.tiny.batches import random_batch
from tests.tiny.methods import tiny_method, tiny_profile

PROFILE = tiny_profile("phantom_clip")


@torch.no_grad()
@pytest.mark.parametrize(("sign", "expected"), [(1.0, 0.0), (-1.0, 4.0)])
def test_equal_and_opposite_pairs(sign: float, expected: float) -> None:
    method, batch = tiny_method(PROFILE).eval(), random_batch(PROFILE, 4)
    outputs = method(batch)
    reports = replace(outputs.reports, report=sign * 3 * outputs.images.image)
    measure = PairDistance(Context(objective=method, device=torch.device("cpu")))
    measure.update(batch, replace(outputs, reports=reports))
    assert measure.compute() == {"pair_distance": pytest.approx(expected, abs=1e-5)}
