"""Memory that outlives a block of pairs."""

from __future__ import annotations

import torch

from distributed_pretrain.alignment.pairwise.memory import KeptMemory, Scratch

CPU = torch.device("cpu")


def test_what_is_kept_lies_side_by_side_in_one_allocation_until_it_is_full() -> None:
    kept = KeptMemory(200, None, CPU)
    first = kept.copy(torch.ones(3, 5))
    second = kept.copy(torch.full((8,), 2.0, dtype=torch.float64))
    assert first is not None
    assert second is not None
    assert first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
    assert kept.place((19,), torch.float32) is None
    assert kept.place((18,), torch.float32) is not None
    assert first.equal(torch.ones(3, 5))
    assert second.equal(torch.full((8,), 2.0, dtype=torch.float64))


def test_the_next_block_takes_the_place_of_the_last() -> None:
    scratch = Scratch(12, torch.float32, CPU)
    last = scratch.place("products", (3, 4)).fill_(1.0)
    other = scratch.place("gates", (3, 4)).fill_(2.0)
    following = scratch.place("products", (2, 2)).fill_(3.0)
    assert following.data_ptr() == last.data_ptr()
    assert last.flatten().tolist() == [3.0] * 4 + [1.0] * 8
    assert other.eq(2.0).all()


def test_nothing_is_kept_where_the_chunk_size_decides_and_no_more_than_wanted() -> None:
    assert KeptMemory(64, 3, CPU).place((1,), torch.float32) is None
    assert KeptMemory(64, None, CPU).place((16,), torch.float32) is not None
    assert KeptMemory(64, None, CPU).place((17,), torch.float32) is None
