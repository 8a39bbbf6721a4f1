"""Shares of the training studies are nested, by seed, and keep how often a class is there."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from pathlib import Path

import pytest

from data_shards.records.study import Split
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.subsets import stratified_order
from distributed_pretrain.pretrain.build import open_split

CLASSES = {"a": 0.5, "b": 0.1, "c": 0.02}


def drawn(studies: int = 2000) -> dict[str, frozenset[str]]:
    chance = random.Random(0)
    return {
        f"study-{number}": frozenset(name for name, p in CLASSES.items() if chance.random() < p)
        for number in range(studies)
    }


def shares(keys: list[str], present: dict[str, frozenset[str]]) -> dict[str, float]:
    counts = Counter(name for key in keys for name in present[key])
    return {name: counts[name] / len(keys) for name in CLASSES}


@pytest.mark.parametrize("count", [20, 200, 2000])
def test_every_beginning_has_each_class_as_often_as_all(count: int) -> None:
    present = drawn()
    whole = shares(list(present), present)
    found = shares(stratified_order(present, seed=5)[:count], present)
    strata = len(set(present.values()))
    for name, share in found.items():
        # To within one study of each combination, of which half have any one class.
        assert abs(share - whole[name]) * count <= strata / 2 + 1e-9


def test_it_is_a_permutation_that_follows_from_the_seed_alone() -> None:
    present = drawn(100)
    order = stratified_order(present, seed=1)
    assert sorted(order) == sorted(present)
    assert stratified_order(dict(reversed(present.items())), seed=1) == order
    assert stratified_order(present, seed=2) != order


def test_rsna_at_1_and_10_percent_has_the_positives_of_the_paper() -> None:
    present = {f"{n}": frozenset({"Pneumonia"} if n < 3584 else ()) for n in range(16010)}
    order = stratified_order(present, seed=0)
    for fraction, studies, positives in ((0.01, 160, 36), (0.1, 1601, 358)):
        kept = order[: round(fraction * len(order))]
        assert len(kept) == studies
        assert abs(sum(bool(present[key]) for key in kept) - positives) <= 1


def test_a_share_of_the_training_split_holds_every_smaller_one(drawn_shards: Path) -> None:
    def keys(fraction: float, split: Split = "train", *, seed: int = 0) -> set[str]:
        config = DataConfig.model_validate(
            {
                "shards": drawn_shards,
                "masks": ["Pleural Effusion"],
                "augmentation": {"enabled": False},
                "fraction": fraction,
                "fraction_seed": seed,
            }
        )
        found = open_split(config, split)
        # A loader's own process opens it again.
        again = pickle.loads(pickle.dumps(found))
        assert len(again) == len(found)
        return {again.key(position) for position in range(len(again))}

    quarter, half, whole = (keys(fraction) for fraction in (0.25, 0.5, 1.0))
    assert (len(quarter), len(half), len(whole)) == (8, 16, 32)
    assert quarter < half < whole
    assert keys(0.5, seed=1) != half
    assert len(keys(0.25, "test")) == len(keys(0.25, "validate")) == 24
    config = DataConfig.model_validate({"shards": drawn_shards, "validate_fraction": 0.5})
    assert [len(open_split(config, each)) for each in ("train", "validate", "test")] == [32, 12, 24]
