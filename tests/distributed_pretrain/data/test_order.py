"""The global sample order."""

from itertools import islice

import numpy as np
import pytest

from data_shards.errors import InputError
from distributed_pretrain.data.order import GlobalOrder, check_world_size
from distributed_pretrain.data.share import Share


def order(
    shard_sizes: tuple[int, ...] = (7, 5, 0, 9, 4, 6),
    global_batch: int = 4,
    seed: int = 3,
    shuffle_buffer_shards: int = 2,
) -> GlobalOrder:
    return GlobalOrder(shard_sizes, global_batch, seed, shuffle_buffer_shards)


def test_an_epoch_visits_every_sample_once() -> None:
    assert sorted(order().epoch_positions(0)) == list(range(31))


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else() -> None:
    first = order().epoch_positions(5)
    order().epoch_positions(0)
    np.testing.assert_array_equal(first, order().epoch_positions(5))
    assert not np.array_equal(first, order().epoch_positions(6))
    assert not np.array_equal(first, order(seed=4).epoch_positions(5))


def test_samples_stay_within_their_window_of_shards() -> None:
    wide = order(shard_sizes=(10,) * 8, shuffle_buffer_shards=2)
    shards = wide.epoch_positions(1) // 10
    for start in range(0, 80, 20):
        assert len(set(shards[start : start + 20])) == 2


def test_samples_of_a_window_are_mixed() -> None:
    wide = order(shard_sizes=(100, 100), shuffle_buffer_shards=2)
    first_half = wide.epoch_positions(0)[:100] // 100
    assert 30 < first_half.sum() < 70


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 12])
def test_the_shares_of_the_ranks_join_to_the_global_batch(world_size: int) -> None:
    batch = order().epoch_positions(0)[:12]
    shares = [Share(rank, world_size).of(batch) for rank in range(world_size)]
    np.testing.assert_array_equal(np.concatenate(shares), batch)


def test_64_ranks_read_disjoint_samples_of_a_large_set_each_once_an_epoch() -> None:
    large = order(shard_sizes=(200,) * 2000, global_batch=512, shuffle_buffer_shards=16)
    epoch = [batch.positions for batch in islice(large.batches(0), large.steps_per_epoch)]
    ranks = [np.concatenate([Share(rank, 64).of(each) for each in epoch]) for rank in range(64)]
    assert {len(each) for each in ranks} == {large.steps_per_epoch * 512 // 64}
    together = np.concatenate(ranks)
    assert len(np.unique(together)) == len(together) == 400_000 // 512 * 512


def test_samples_consumed_tell_epoch_and_step() -> None:
    assert order().steps_per_epoch == 7
    assert order().epoch_and_step(0) == (0, 0)
    assert order().epoch_and_step(6 * 4) == (0, 6)
    assert order().epoch_and_step(7 * 4) == (1, 0)


def test_another_global_batch_cannot_resume() -> None:
    with pytest.raises(InputError, match="samples_consumed=6 is no multiple of global_batch=4"):
        order().epoch_and_step(6)


def test_a_batch_larger_than_the_split_is_refused() -> None:
    with pytest.raises(InputError, match="global_batch=32 is larger than the split of 31 samples"):
        order(global_batch=32)


def test_ranks_that_do_not_divide_the_global_batch_are_refused_with_the_nearest_that_do() -> None:
    check_world_size(500, 20)
    with pytest.raises(
        InputError,
        match=r"global_batch=500 is not divisible by 16 ranks: use 10 or 20 ranks, "
        r"or global_batch=496 or 512",
    ):
        check_world_size(500, 16)
    with pytest.raises(InputError, match=r"use 2 ranks, or global_batch=3$"):
        check_world_size(2, 3)
