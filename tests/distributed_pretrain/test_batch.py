"""Batches and their parts."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from data_shards.records.study import Report, StudyRecord
from distributed_pretrain.batch import (
    Batch,
    Boxes,
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
    ids, mask, sentence, sentence_mask, word = torch.randint(0, 99, (5, ROWS, 8))
    report = ReportTokens(ids, mask, sentence, sentence_mask, word)
    return Batch(
        keys=tuple(map(str, range(ROWS))),
        images=torch.randn(ROWS, 1, 4, 4),
        report=report,
        sample_mask=torch.arange(ROWS) < 5,
        lateral=Lateral(torch.randn(ROWS, 1, 4, 4), torch.arange(ROWS) % 2 == 0, (True, False) * 3),
        second_view=SecondView(torch.randn(ROWS, 1, 4, 4), torch.randn(ROWS, 2, 2, 3)),
        labels=torch.randn(ROWS, 3),
        masks=torch.rand(ROWS, 2, 4, 4) > 0.5,
        boxes=Boxes(
            torch.randn(ROWS, 3, 4), torch.randint(0, 2, (ROWS, 3)), torch.rand(ROWS, 3) > 0.5
        ),
        features={"map": torch.randn(ROWS, 5, 2, 2)},
        records=tuple(map(record, range(ROWS))),
        epoch=3,
        samples_consumed=12,
        replaced=1,
        real=(True,) * 5 + (False,),
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
    if isinstance(one, dict) and isinstance(other, dict):
        return all(same(one[name], other[name]) for name in one.keys() | other.keys())
    return one == other


def test_a_split_cuts_every_field_and_the_parts_join_to_the_whole() -> None:
    batch = full()
    assert all(getattr(batch, field.name) is not None for field in fields(batch))
    parts = batch.split([1] * 3)
    assert [part.keys for part in parts] == [("0", "1"), ("2", "3"), ("4", "5")]
    assert [len(part.records) for part in parts] == [2, 2, 2]
    whole, pieces = tensors(batch), [tensors(part) for part in parts]
    assert len(whole) == 17
    for name, value in whole.items():
        assert torch.equal(torch.cat([piece[name] for piece in pieces]), value), name
    assert same(join_rows(parts), batch)


def test_one_piece_is_the_batch_itself_and_unequal_pieces_are_refused() -> None:
    batch = full()
    assert batch.split([1])[0] is batch
    with pytest.raises(AssertionError, match="6 rows cannot be cut into 4"):
        batch.split([1] * 4)


def test_moving_takes_every_field_along() -> None:
    for name, value in tensors(full().to(torch.device("meta"))).items():
        assert value.device.type == "meta", name
    batch = full()
    there = batch.to(torch.device("cpu"))
    assert all(same(getattr(there, f.name), getattr(batch, f.name)) for f in fields(batch))


def test_fields_that_were_not_asked_for_stay_away() -> None:
    whole = full()
    plain = Batch(whole.keys, whole.images, whole.report, whole.sample_mask)
    optional = ("lateral", "second_view", "labels", "masks", "boxes", "features")
    for batch in (*plain.split([1, 1]), plain.to(torch.device("cpu"))):
        assert [getattr(batch, name) for name in optional] == [None] * 6


def test_parts_are_cut_to_their_own_longest_report_in_steps_of_32_tokens() -> None:
    lengths, sentences = (40, 7, 97, 64), (3, 1, 9, 4)
    mask = torch.arange(104) < torch.tensor(lengths)[:, None]
    numbers = torch.arange(104).expand(4, -1)
    batch = replace(
        full().rows(slice(4)),
        report=ReportTokens(
            token_ids=numbers,
            token_mask=mask,
            sentence_index=numbers,
            sentence_mask=torch.arange(9) < torch.tensor(sentences)[:, None],
            word_index=numbers,
            lengths=lengths,
            sentences=sentences,
        ),
    )
    first, second = (part.report for part in batch.split([1, 1]))
    assert (first.token_ids.shape, first.sentence_mask.shape) == ((2, 64), (2, 3))
    assert (second.token_ids.shape, second.sentence_mask.shape) == ((2, 104), (2, 9))
    assert torch.equal(first.token_mask, mask[:2, :64])
    assert (first.lengths, second.sentences) == ((40, 7), (9, 4))
    assert batch.split([1])[0].report.token_ids.shape == (4, 104)


def test_masks_of_what_is_encoded_lie_on_the_host_where_it_knows_them() -> None:
    batch = full()
    assert batch.encoded_mask.tolist() == list(batch.real)
    assert batch.lateral_mask.tolist() == [True, False, True, False, True, False]
    unknown = replace(batch, real=())
    assert unknown.encoded_mask is unknown.sample_mask
    assert torch.equal(unknown.lateral_mask, batch.lateral_mask)
