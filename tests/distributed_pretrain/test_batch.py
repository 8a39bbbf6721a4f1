"""Batches and their parts."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from distributed_pretrain.batch import Batch, ReportTokens

ROWS = 6


def full() -> Batch:
    """A batch with every field, each different in every row."""
    report = ReportTokens(*(torch.randint(0, 99, (ROWS, 8)) for _ in range(5)))
    return Batch(
        keys=tuple(map(str, range(ROWS))),
        images=torch.randn(ROWS, 1, 4, 4),
        report=report,
        sample_mask=torch.arange(ROWS) < 5,
        lateral=torch.randn(ROWS, 1, 4, 4),
        lateral_mask=torch.arange(ROWS) % 2 == 0,
        second_view=torch.randn(ROWS, 1, 4, 4),
        view_to_image=torch.randn(ROWS, 2, 2, 3),
        labels=torch.randn(ROWS, 3),
    )


def same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, ReportTokens) and isinstance(other, ReportTokens):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return one == other


def test_a_split_cuts_every_field_and_the_parts_join_to_the_whole() -> None:
    batch = full()
    assert all(getattr(batch, field.name) is not None for field in fields(batch))
    parts = batch.split(3)
    assert [part.keys for part in parts] == [("0", "1"), ("2", "3"), ("4", "5")]
    for field in fields(Batch):
        whole, pieces = getattr(batch, field.name), [getattr(part, field.name) for part in parts]
        if isinstance(whole, Tensor):
            assert torch.equal(torch.cat(pieces), whole), field.name
    for field in fields(ReportTokens):
        pieces = [getattr(part.report, field.name) for part in parts]
        assert torch.equal(torch.cat(pieces), getattr(batch.report, field.name)), field.name


def test_one_piece_is_the_batch_itself_and_unequal_pieces_are_refused() -> None:
    batch = full()
    assert batch.split(1)[0] is batch
    with pytest.raises(AssertionError, match="6 rows cannot be cut into 4"):
        batch.split(4)


def test_moving_takes_every_field_along() -> None:
    moved = full().to(torch.device("meta"))
    for owner in (moved, moved.report):
        for field in fields(owner):
            value = getattr(owner, field.name)
            assert not isinstance(value, Tensor) or value.device.type == "meta", field.name
    batch = full()
    there = batch.to(torch.device("cpu"))
    assert all(same(getattr(there, f.name), getattr(batch, f.name)) for f in fields(batch))


def test_fields_that_were_not_asked_for_stay_away() -> None:
    whole = full()
    plain = Batch(whole.keys, whole.images, whole.report, whole.sample_mask)
    optional = ("lateral", "lateral_mask", "second_view", "view_to_image", "labels")
    for batch in (*plain.split(2), plain.to(torch.device("cpu"))):
        assert [getattr(batch, name) for name in optional] == [None] * 5
