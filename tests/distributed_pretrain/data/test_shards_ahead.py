"""Shards of a store come before they are read, as far as the cache has room for them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from data_shards.remote.settings import CacheConfig
from distributed_pretrain.data.loader import TrainingLoader
from distributed_pretrain.data.order import GlobalOrder
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.tokenization import SentenceTokenizer
from tests.data_shards.remote.web_store import WebStore, running

pytest.importorskip("aiohttp")


@pytest.mark.parametrize("consumed", [0, 4, 8, 12, 24])
def test_shards_are_told_in_the_order_in_which_batches_read_them(consumed: int) -> None:
    order = GlobalOrder((3, 4, 2, 5, 1), 4, seed=3, shuffle_buffer_shards=2)
    ends = np.cumsum(order.shard_sizes)
    told = list(islice(order.shards(consumed), 40))
    samples_an_epoch = 12
    for batch in islice(order.batches(consumed), 12):
        epoch = range(batch.epoch * samples_an_epoch, batch.samples_consumed)
        begun = {number for begin, number in told if begin in epoch}
        read = set(np.searchsorted(ends, batch.positions, side="right").tolist())
        assert read <= begun
    begins = [begin for begin, _ in told]
    assert begins == sorted(begins)
    assert begins[0] <= consumed
    assert len(begun) <= len(order.shard_sizes)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WebStore]:
    with running(tmp_path / "store") as server:
        yield server


def loader_of(
    store: WebStore, tokenizer: SentenceTokenizer, shards: object, cache: CacheConfig
) -> TrainingLoader:
    data = DataConfig.model_validate(
        {
            "shards": shards,
            "cache": cache,
            "global_batch": 4,
            "image_size_px": 32,
            "shuffle_buffer_shards": 1,
            "prefetch_batches": 1,
            "prefetch_shards": 1,
            "decode_threads": 1,
        }
    )
    return TrainingLoader(ShardSplit(data.files(), "train", "lovt"), tokenizer, data, seed=0)


def tars_of(store: WebStore) -> set[str]:
    return {name for name in store.asked if name.endswith(".tar")}


def test_the_next_shard_is_asked_for_before_it_is_read(
    store: WebStore, tmp_path: Path, small_tokenizer: SentenceTokenizer
) -> None:
    here = loader_of(store, small_tokenizer, store.folder, CacheConfig())
    there = loader_of(store, small_tokenizer, store.address, CacheConfig(folder=tmp_path / "cache"))
    with closing(here.batches()) as local, closing(there.batches()) as remote:
        assert next(remote).keys == next(local).keys
        deadline = time.monotonic() + 30
        # Two batches are read, of a shard each; the third shard is the one ahead.
        while len(tars_of(store)) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for _ in range(6):
            assert next(remote).keys == next(local).keys
    assert {store.asked[name] for name in tars_of(store)} == {1}


def test_nothing_is_fetched_that_the_cache_has_no_room_for(
    store: WebStore, tmp_path: Path, small_tokenizer: SentenceTokenizer
) -> None:
    largest = max(path.stat().st_size for path in store.folder.glob("*.tar"))
    cache = CacheConfig(folder=tmp_path / "cache", size_gib=1.5 * largest / 2**30)
    loader = loader_of(store, small_tokenizer, store.address, cache)
    with closing(loader.batches()) as batches:
        next(batches)
        time.sleep(0.3)
        assert len(tars_of(store)) <= 2
