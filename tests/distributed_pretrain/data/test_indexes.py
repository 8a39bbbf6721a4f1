import gc
from contextlib import closing
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.records.indexed_samples import IndexedSamples
from data_shards.records.manifest import ShardEntry, ShardIndex
from data_shards.remote.shards import ShardFiles
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.data import indexes
from distributed_pretrain.data.loader import TrainingLoader
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.tokenization import SentenceTokenizer


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_synthetic_shards(
        tmp_path / "shards", studies={"train": 12}, studies_a_shard=3, longest_side_px=16
    )
    return tmp_path / "shards"


def held_indices() -> int:
    gc.collect()
    return sum(type(each) is IndexedSamples for each in gc.get_objects())


def test_an_opened_split_holds_the_indices_of_few_shards(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "_HELD", 2)
    before = held_indices()
    split = ShardSplit(shards, "train", "lovt")
    assert held_indices() == before
    keys = [split.read(position).key for position in range(len(split))]
    assert keys == [split.key(position) for position in range(len(split))]
    assert held_indices() == before + 2


def test_an_index_that_changes_while_its_shards_are_read_ends_the_run(shards: Path) -> None:
    split = ShardSplit(shards, "train", "lovt")
    split.read(0)
    for path in shards.glob("*.index.json"):
        path.write_text(path.read_text() + " ")
    split.read(1)  # held already
    with pytest.raises(InputError, match=r"train-000001\.index\.json: changed since"):
        split.read(3)


def test_all_shards_that_are_shuffled_together_stay_at_hand(
    shards: Path, monkeypatch: pytest.MonkeyPatch, small_tokenizer: SentenceTokenizer
) -> None:
    monkeypatch.setattr(indexes, "_HELD", 1)
    split = ShardSplit(shards, "train", "lovt")
    read: list[str] = []
    read_index = ShardFiles.read_index

    def counted(files: ShardFiles, entry: ShardEntry) -> ShardIndex:
        read.append(entry.index_name)
        return read_index(files, entry)

    monkeypatch.setattr(ShardFiles, "read_index", counted)
    data = DataConfig(
        shards=shards,
        global_batch=4,
        shuffle_buffer_shards=4,
        decode_threads=1,
        image_size_px=32,
    )
    loader = TrainingLoader(split, small_tokenizer, data, seed=0)
    with closing(loader.batches()) as batches:
        for _ in range(9):  # three epochs
            next(batches)
    assert len(read) == len(set(read)) == 4
