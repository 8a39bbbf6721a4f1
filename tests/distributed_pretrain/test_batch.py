"""Batches and their parts."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from data_shards.records.study import Report, StudyRecord
from distributed_pretrain.batch import (
    Batch,
    Lateral,
    ReportTokens,
    SampleRows,
    SecondView,
    join_rows,
)
from tests.distributed_pretrain.phantom_batches import tensors

ROWS = 6


def full() -> Batch:
    """A batch with every field, each different in every row."""
    report = ReportTokens(*(torch.randint(0, 99, (ROWS, 8)) for _ in range(5)))
    return Batch(
        keys=tuple(map(str, range(ROWS))),
        images=torch.randn(ROWS, 1, 4, 4),
        report=report,
        sample_mask=torch.arange(ROWS) < 5,
        lateral=Lateral(torch.randn(ROWS, 1, 4, 4), torch.arange(ROWS) % 2 == 0),
        second_view=SecondView(torch.randn(ROWS, 1, 4, 4), torch.randn(ROWS, 2, 2, 3)),
        labels=torch.randn(ROWS, 3),
        records=tuple(map(record, range(ROWS))),
        epoch=3,
        samples_consumed=12,
        replaced=1,
    )


def record(number: int) -> StudyRecord:
    report = Report(raw="", sections={}, sentences={})
    key = str(number)
    return StudyRecord(key, key, key, "train", "", "", (), report, {}, (), ())


def same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, SampleRows) and isinstance(other, SampleRows):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return one == other


def test_a_split_cuts_every_field_and_the_parts_join_to_the_whole() -> None:
    batch = full()
    assert all(getattr(batch, field.name) is not None for field in fields(batch))
    parts = batch.split(3)
    assert [part.keys for part in parts] == [("0", "1"), ("2", "3"), ("4", "5")]
    assert [len(part.records) for part in parts] == [2, 2, 2]
    whole, pieces = tensors(batch), [tensors(part) for part in parts]
    assert len(whole) == 12
    for name, value in whole.items():
        assert torch.equal(torch.cat([piece[name] for piece in pieces]), value), name
    assert same(join_rows(parts), batch)


def test_one_piece_is_the_batch_itself_and_unequal_pieces_are_refused() -> None:
    batch = full()
    assert batch.split(1)[0] is batch
    with pytest.raises(AssertionError, match="6 rows cannot be cut into 4"):
        batch.split(4)


def test_moving_takes_every_field_along() -> None:
    for name, value in tensors(full().to(torch.device("meta"))).items():
        assert value.device.type == "meta", name
    batch = full()
    there = batch.to(torch.device("cpu"))
    assert all(same(getattr(there, f.name), getattr(batch, f.name)) for f in fields(batch))


def test_fields_that_were_not_asked_for_stay_away() -> None:
    whole = full()
    plain = Batch(whole.keys, whole.images, whole.report, whole.sample_mask)
    optional = ("lateral", "second_view", "labels")
    for batch in (*plain.split(2), plain.to(torch.device("cpu"))):
        assert [getattr(batch, name) for name in optional] == [None] * 3
