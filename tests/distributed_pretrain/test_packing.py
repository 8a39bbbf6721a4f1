"""Packed reports: each token once, and how much padding an encoder still reads."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from distributed_pretrain.packing import WIDTHS, Packing

CPU = torch.device("cpu")
# Tokens of a report, with [CLS] and [SEP]: mean and deviation of a log-normal distribution. That of
# MIMIC is assumed, as no token of it may be here; OpenI's reports are shorter, and three profiles
# read one sentence.
KINDS = {"mimic": (90, 45), "openi": (48, 24), "one sentence": (16, 8)}


def drawn(kind: str, reports: int, *, seed: int = 0) -> list[int]:
    mean, deviation = KINDS[kind]
    spread = np.log(1 + (deviation / mean) ** 2)
    numbers = np.random.default_rng(seed).lognormal(np.log(mean) - spread / 2, spread**0.5, reports)
    return [int(each) for each in numbers.round().clip(3, 512)]


@pytest.mark.parametrize(
    ("rows", "bound"), [(32, 1.3), (48, 1.3), (72, 1.2), (256, 1.1), (512, 1.1)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_papers_micro_batches_read_few_tokens_that_are_padding(
    kind: str, rows: int, bound: float
) -> None:
    computed, real, padded = 0, 0, 0
    for seed in range(20):
        lengths = drawn(kind, rows, seed=seed)
        packing = Packing.of(lengths, max(lengths), CPU)
        assert packing.width in WIDTHS
        assert packing.tokens <= 1.3 * sum(lengths)
        computed, real = computed + packing.tokens, real + sum(lengths)
        padded += rows * max(lengths)
    assert computed <= bound * real
    assert padded > 1.8 * real  # which is what there was to gain


@pytest.mark.parametrize("lengths", [[3], [5, 0, 7], [600, 20], drawn("mimic", 40)])
def test_each_token_has_a_place_of_its_own_and_each_report_one_row(lengths: list[int]) -> None:
    width = max(lengths) + 2
    packing = Packing.of(lengths, width, CPU)
    packed = packing.packed
    assert len(packed) == len(packed.unique()) == sum(lengths)
    assert int(packed.max()) < packing.tokens
    ends = np.cumsum([0, *lengths]).tolist()
    for report, (start, end) in enumerate(pairwise(ends)):
        own, places = packed[start:end], torch.arange(end - start)
        assert len({place // packing.width for place in own.tolist()}) <= 1
        assert torch.equal(own - own[:1], places)
        assert torch.equal(packing.padded[start:end], report * width + places)


def test_what_is_packed_is_unpacked_to_its_place_and_padding_is_zero() -> None:
    lengths = drawn("openi", 9)
    width = max(lengths) + 3
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    ids = torch.randint(1, 99, mask.shape)
    packing = Packing.of(lengths, width, CPU)
    packed = packing.pack(ids, filler=0)
    assert int((packed > 0).sum()) == sum(lengths)
    again = packing.unpack(packed[..., None].double(), batch=len(lengths), tokens=width)
    assert torch.equal(again[..., 0], torch.where(mask, ids, 0).double())
