"""Loaders: order, resuming, bad samples, evaluation."""

import json
import threading
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.io import decode_image

from data_shards.errors import InputError
from data_shards.files.json_lines import JsonLines
from data_shards.records.manifest import read_shard_index
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.batch import Batch
from distributed_pretrain.data.loader import EvaluationLoader, TrainingLoader
from distributed_pretrain.data.quarantine import BadSampleError
from distributed_pretrain.data.settings import AugmentationConfig, DataConfig
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.share import Share
from distributed_pretrain.data.tokenization import SentenceTokenizer
from distributed_pretrain.data.tokenizer_training import train_wordpiece
from tests.distributed_pretrain.data.one_sample import load_sample

STUDIES = 22


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> SentenceTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_wordpiece(
        ["The lungs are clear.", "Small effusion, no acute process."], folder, vocabulary_size=100
    )
    return SentenceTokenizer.load(folder)


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    write_synthetic_shards(
        tmp_path / "shards",
        studies={"train": STUDIES},
        studies_a_shard=5,
        longest_side_px=64,
        views=("L", "PA", "AP"),
    )
    return DataConfig(
        shards=tmp_path / "shards",
        image_size_px=32,
        global_batch=4,
        shuffle_buffer_shards=2,
        decode_threads=3,
        max_bad_fraction=0.2,
    )


def opened(data: DataConfig) -> ShardSplit:
    return ShardSplit(data.files(), "train", data.text_policy)


def train(
    data: DataConfig,
    tokenizer: SentenceTokenizer,
    *,
    steps: int,
    consumed: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> list[Batch]:
    split = opened(data)
    loader = TrainingLoader(split, tokenizer, data, seed=7, share=Share(rank, world_size))
    batches = loader.batches(consumed)
    taken = list(islice(batches, steps))
    batches.close()
    return taken


def assert_same(ours: Sequence[Batch], theirs: Sequence[Batch]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert (one.keys, one.epoch, one.samples_consumed) == (
            other.keys,
            other.epoch,
            other.samples_consumed,
        )
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.report.token_ids, other.report.token_ids)


def damage(data: DataConfig, *positions: int, member: str = "image1.jpg") -> set[str]:
    """Flip a byte in a member of the samples at `positions`; their keys."""
    keys = set()
    for position in positions:
        stem = f"train-{position // 5:06d}"
        entry = read_shard_index(data.files().folder / f"{stem}.index.json").samples[position % 5]
        with (data.files().folder / f"{stem}.tar").open("r+b") as file:
            file.seek(entry.members[member].offset + 40)
            file.write(b"\x13\x37")
        keys.add(entry.key)
    return keys


def test_epochs_follow_each_other_in_whole_batches(
    data: DataConfig, tokenizer: SentenceTokenizer
) -> None:
    batches = train(data, tokenizer, steps=11)
    assert [batch.epoch for batch in batches] == [0] * 5 + [1] * 5 + [2]
    assert [batch.samples_consumed for batch in batches] == [4 * (i + 1) for i in range(11)]
    for epoch in (batches[:5], batches[5:10]):
        assert len({key for batch in epoch for key in batch.keys}) == 20


def test_resuming_anywhere_gives_what_would_have_followed(
    data: DataConfig, tokenizer: SentenceTokenizer
) -> None:
    whole = train(data, tokenizer, steps=9)
    for done in (1, 4, 5, 7):
        rest = train(data, tokenizer, steps=9 - done, consumed=4 * done)
        assert_same(rest, whole[done:])


def test_threads_and_prefetching_change_nothing(
    data: DataConfig, tokenizer: SentenceTokenizer
) -> None:
    one = data.model_copy(update={"decode_threads": 1, "prefetch_batches": 1})
    assert_same(train(one, tokenizer, steps=6), train(data, tokenizer, steps=6))


def test_the_shares_of_two_ranks_join_to_the_batch_of_one(
    data: DataConfig, tokenizer: SentenceTokenizer
) -> None:
    whole = train(data, tokenizer, steps=6)
    shares = [train(data, tokenizer, steps=6, rank=r, world_size=2) for r in range(2)]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert first.keys + second.keys == batch.keys
        # Sums of pixels in another order: a share is resized with other neighbours.
        joined = torch.cat([first.images, second.images])
        torch.testing.assert_close(joined, batch.images, atol=1e-5, rtol=0)


def test_views_and_augmentation_change_from_epoch_to_epoch(
    data: DataConfig, tokenizer: SentenceTokenizer
) -> None:
    seen: dict[str, list[Tensor]] = {}
    for batch in train(data, tokenizer, steps=15):
        for key, image in zip(batch.keys, batch.images, strict=True):
            seen.setdefault(key, []).append(image)
    assert max(map(len, seen.values())) == 3
    for images in seen.values():
        for number, image in enumerate(images):
            assert not any(torch.equal(image, other) for other in images[:number])


def test_training_draws_among_the_frontal_images_only(data: DataConfig) -> None:
    plain = data.model_copy(update={"augmentation": AugmentationConfig(enabled=False)})
    split = opened(plain)
    for position in range(STUDIES):
        members = [split.read_member(position, f"image{i}.jpg") for i in (1, 2)]
        frontal = {int(_decoded(member).sum()) for member in members}
        drawn = set()
        for epoch in range(8):
            sample = load_sample(split, plain, seed=7, epoch=epoch, position=position)
            assert sample.frontal.draw is None
            drawn.add(int(sample.frontal.pixels.sum()))
        assert drawn == frontal


def _decoded(payload: bytes) -> Tensor:
    pixels: Tensor = decode_image(torch.frombuffer(bytearray(payload), dtype=torch.uint8))
    return pixels


def test_bad_samples_are_replaced_counted_and_named_once(
    data: DataConfig, tokenizer: SentenceTokenizer, tmp_path: Path
) -> None:
    clean = train(data, tokenizer, steps=10)
    bad = damage(data, 3, 11, member="json")
    path = tmp_path / "run" / "quarantine.jsonl"

    loader = TrainingLoader(opened(data), tokenizer, data, seed=7, quarantine=JsonLines(path))
    stream = loader.batches()
    batches = list(islice(stream, 10))
    stream.close()
    for before, after in zip(clean, batches, strict=True):
        for old, new in zip(before.keys, after.keys, strict=True):
            assert new not in bad
            assert old == new or old in bad
    assert sum(batch.replaced for batch in batches) == sum(
        key in bad for batch in clean for key in batch.keys
    )
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(line["key"] for line in lines) == sorted(bad)
    assert all(line["shard"].endswith(".tar") and "checksum" in line["reason"] for line in lines)

    resumed = TrainingLoader(opened(data), tokenizer, data, seed=7, quarantine=JsonLines(path))
    stream = resumed.batches(12)
    for batch, expected in zip(islice(stream, 7), batches[3:], strict=True):
        assert batch.keys == expected.keys
    stream.close()
    assert len(path.read_text().splitlines()) == 2


def test_too_many_bad_samples_stop_the_run(data: DataConfig, tokenizer: SentenceTokenizer) -> None:
    damage(data, 0, 4, 8, 12, 16, member="json")
    with pytest.raises(InputError, match=r"5 of 22 samples of split 'train' cannot be read"):
        train(data, tokenizer, steps=10)


def test_images_that_do_not_decode_are_bad_samples(data: DataConfig) -> None:
    split = opened(data)
    payload = split.read_member(0, "image1.jpg")
    for damaged, reason in (
        (payload[: len(payload) // 2], "cannot be decoded"),
        (b"not an image at all", "cannot be decoded"),
    ):
        pretender = _ReplacedImage(split, damaged)
        with pytest.raises(BadSampleError, match=reason):
            load_sample(pretender, data, position=0)


class _ReplacedImage(ShardSplit):
    """A split whose images are all `payload`, as if the builder had stored them so."""

    def __init__(self, split: ShardSplit, payload: bytes) -> None:
        vars(self).update(vars(split))
        self._payload = payload

    def view_member(self, position: int, name: str) -> memoryview:
        stored = super().view_member(position, name)
        return stored if name == "json" else memoryview(self._payload)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_evaluation_sees_every_sample_once_in_file_order(
    data: DataConfig, tokenizer: SentenceTokenizer, world_size: int
) -> None:
    loaders = [
        EvaluationLoader(opened(data), tokenizer, data, Share(rank, world_size))
        for rank in range(world_size)
    ]
    assert load_sample(opened(data), data, position=0).frontal.draw is None
    seen: list[str] = []
    for shares in zip(*(loader.batches() for loader in loaders), strict=True):
        assert len({len(share.keys) for share in shares}) == 1
        for share in shares:
            rows = zip(share.keys, share.sample_mask.tolist(), strict=True)
            seen += [key for key, real in rows if real]
    assert seen == [f"train{i:06d}" for i in range(STUDIES)]
    assert len(loaders[0]) == 6


def test_evaluation_masks_unreadable_samples(
    data: DataConfig, tokenizer: SentenceTokenizer
) -> None:
    bad = damage(data, 9)
    batches = list(EvaluationLoader(opened(data), tokenizer, data).batches())
    mask = torch.cat([batch.sample_mask for batch in batches])
    keys = [key for batch in batches for key in batch.keys]
    assert [i for i, real in enumerate(mask.tolist()) if not real] == [9]
    assert keys[9] not in bad


def test_closing_a_loader_ends_its_threads(data: DataConfig, tokenizer: SentenceTokenizer) -> None:
    def data_threads() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("data")]

    loader = TrainingLoader(opened(data), tokenizer, data, seed=0)
    stream = loader.batches()
    next(stream)
    assert data_threads()
    stream.close()
    assert data_threads() == []
    assert loader.wait_seconds > 0


def test_a_failing_consumer_leaves_no_thread_behind(
    data: DataConfig, tokenizer: SentenceTokenizer
) -> None:
    damage(data, *range(0, 20), member="json")
    loader = TrainingLoader(opened(data), tokenizer, data, seed=0)
    with pytest.raises(InputError):
        next(loader.batches())
    assert not [t for t in threading.enumerate() if t.name.startswith("data")]
