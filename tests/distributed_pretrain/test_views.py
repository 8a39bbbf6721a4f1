"""Laterals, second augmentations, labels and single sentences, from phantom shards to batches."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import fields
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_shards.build import build_shards
from data_shards.config import ShardsConfig
from data_shards.profiles import validate
from data_shards.records.errors import InputError
from data_shards.records.manifest import read_shard_index
from data_shards.records.policies import select_sentences
from distributed_pretrain.batch import Batch
from distributed_pretrain.benchmark.synthetic_shards import write_synthetic_shards
from distributed_pretrain.data.augmentation import DeviceTransform
from distributed_pretrain.data.config import DataConfig
from distributed_pretrain.data.host_batch import HostBatch
from distributed_pretrain.data.loader import EvaluationLoader, TrainingLoader
from distributed_pretrain.data.sample import load_evaluation_sample, load_training_sample
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.tokenization import SentenceTokenizer, train_wordpiece

CPU = torch.device("cpu")
STUDIES = 24
LABELS = ("Pneumonia", "Cardiomegaly", "No Finding")
WITH_LATERALS: dict[str, object] = {
    "views": "frontal_lateral",
    "labels": LABELS,
    "sentences": "one",
}
TWICE: dict[str, object] = {"views": "two_augmentations"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    source = {"name": "phantom", "archive": folder / "archive", "train_studies": STUDIES}
    values = {
        "source": {**source, "validate_studies": 2, "test_studies": 2, "image_size_px": 64},
        "output": folder / "shards",
        "longest_side_px": 64,
        "samples_per_shard": 8,
        "workers": 1,
    }
    build_shards(validate(ShardsConfig, values, where="test"))
    return folder / "shards"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> SentenceTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_wordpiece(["The lungs are clear.", "No effusion."], folder, vocabulary_size=100)
    return SentenceTokenizer.load(folder)


def configured(shards: Path, **changes: object) -> DataConfig:
    values: dict[str, object] = {
        "shards": shards,
        "image_size_px": 32,
        "global_batch": 8,
        "decode_threads": 2,
    }
    return validate(DataConfig, values | changes, where="test")


def opened(data: DataConfig) -> ShardSplit:
    return ShardSplit.open(data.shards, "train", data.text_policy)


def train(
    data: DataConfig,
    tokenizer: SentenceTokenizer,
    *,
    steps: int,
    consumed: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> list[HostBatch]:
    loader = TrainingLoader(opened(data), tokenizer, data, seed=7, rank=rank, world_size=world_size)
    stream = loader.batches(consumed)
    taken = list(islice(stream, steps))
    stream.close()
    return taken


def evaluate(data: DataConfig, tokenizer: SentenceTokenizer) -> list[HostBatch]:
    return list(EvaluationLoader(opened(data), tokenizer, data).batches())


def on_device(data: DataConfig, hosts: list[HostBatch], *, train: bool) -> list[Batch]:
    transform = DeviceTransform.of(data, opened(data).manifest)
    return [transform(host, CPU, train=train) for host in hosts]


def tensors(batch: Batch) -> dict[str, Tensor]:
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    values |= {f.name: getattr(batch.report, f.name) for f in fields(batch.report)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys == other.keys
        mine, its = tensors(one), tensors(other)
        assert mine.keys() == its.keys()
        for name, value in mine.items():
            assert torch.equal(value.nan_to_num(-9), its[name].nan_to_num(-9)), name


@pytest.mark.parametrize("asked", [WITH_LATERALS, TWICE], ids=["laterals", "two augmentations"])
def test_threads_and_resuming_change_no_field(
    shards: Path, tokenizer: SentenceTokenizer, asked: dict[str, object]
) -> None:
    data = configured(shards, **asked)
    whole = on_device(data, train(data, tokenizer, steps=7), train=True)
    slow = data.model_copy(update={"decode_threads": 1, "prefetch_batches": 1})
    assert_same(on_device(data, train(slow, tokenizer, steps=7), train=True), whole)
    for done in (1, 3, 5):
        rest = train(data, tokenizer, steps=7 - done, consumed=8 * done)
        assert_same(on_device(data, rest, train=True), whole[done:])


@pytest.mark.parametrize("asked", [WITH_LATERALS, TWICE], ids=["laterals", "two augmentations"])
def test_the_shares_of_two_ranks_join_in_every_field(
    shards: Path, tokenizer: SentenceTokenizer, asked: dict[str, object]
) -> None:
    data = configured(shards, **asked)
    whole = on_device(data, train(data, tokenizer, steps=4), train=True)
    shares = [
        on_device(data, train(data, tokenizer, steps=4, rank=r, world_size=2), train=True)
        for r in range(2)
    ]
    for batch, *parts in zip(whole, *shares, strict=True):
        pieces = [tensors(part) for part in parts]
        for name, value in tensors(batch).items():
            if name not in vars(batch.report):  # padded to the longest report of a share
                joined = torch.cat([piece[name] for piece in pieces])
                # Sums of pixels in another order: a share is resized with other neighbours.
                torch.testing.assert_close(joined, value, atol=1e-5, rtol=0, equal_nan=True)


@pytest.mark.parametrize("asked", [WITH_LATERALS, TWICE], ids=["laterals", "two augmentations"])
def test_asking_for_more_leaves_the_frontal_images_as_they_were(
    shards: Path, tokenizer: SentenceTokenizer, asked: dict[str, object]
) -> None:
    plain, more = configured(shards), configured(shards, **asked)
    for training in (True, False):
        ours, theirs = (
            on_device(
                data,
                train(data, tokenizer, steps=4) if training else evaluate(data, tokenizer),
                train=training,
            )
            for data in (plain, more)
        )
        for one, other in zip(ours, theirs, strict=True):
            assert one.keys == other.keys
            assert torch.equal(one.images, other.images)
            assert one.lateral is one.second_view is one.view_to_image is one.labels is None


def test_phantom_studies_have_laterals_but_not_all(
    shards: Path, tokenizer: SentenceTokenizer
) -> None:
    data = configured(shards, views="frontal_lateral")
    split = opened(data)
    counts = [len(split.read(i).record.lateral_images()) for i in range(len(split))]
    assert Counter(counts).keys() == {0, 1}
    hosts = train(data, tokenizer, steps=3)
    for host, batch in zip(hosts, on_device(data, hosts, train=True), strict=True):
        assert batch.lateral is not None
        assert batch.lateral_mask is not None
        stored = [bool(record.lateral_images()) for record in host.records]
        assert batch.lateral_mask.tolist() == stored
        assert batch.lateral.shape == batch.images.shape
        assert not batch.lateral[~batch.lateral_mask].any()
        assert (batch.lateral[batch.lateral_mask].flatten(1).std(dim=1) > 0.05).all()


def test_evaluation_shows_the_lateral_as_it_is_stored(
    shards: Path, tokenizer: SentenceTokenizer
) -> None:
    data = configured(shards, views="frontal_lateral")
    split, row = opened(data), 0
    for batch in on_device(data, evaluate(data, tokenizer), train=False):
        assert batch.lateral is not None
        for lateral in batch.lateral:
            sample = load_evaluation_sample(split, data, position=row)
            if sample.lateral is None:
                assert not lateral.any()
            else:
                stored = split.read(row).record.images[sample.record.lateral_images()[0]]
                assert (sample.lateral.height, sample.lateral.width) == (
                    stored.height,
                    stored.width,
                )
                mean = float(sample.lateral.pixels.mean()) / 255
                mean *= stored.height * stored.width / max(stored.height, stored.width) ** 2
                shown = lateral * split.manifest.pixel_std + split.manifest.pixel_mean
                assert float(shown.mean()) == pytest.approx(mean, abs=5e-3)
            row += 1
    assert row == STUDIES


def test_a_batch_without_any_lateral_is_all_masked(
    tmp_path: Path, tokenizer: SentenceTokenizer
) -> None:
    write_synthetic_shards(
        tmp_path, studies={"train": 8}, studies_a_shard=4, longest_side_px=40, views=("PA",)
    )
    data = configured(tmp_path, views="frontal_lateral")
    (batch,) = on_device(data, train(data, tokenizer, steps=1), train=True)
    assert batch.lateral is not None
    assert batch.lateral_mask is not None
    assert not batch.lateral_mask.any()
    assert batch.lateral.shape == batch.images.shape
    assert not batch.lateral.any()


def test_a_lateral_is_flipped_with_its_frontal_and_otherwise_drawn_by_itself(
    shards: Path, tokenizer: SentenceTokenizer
) -> None:
    flips = set()
    for host in train(configured(shards, views="frontal_lateral"), tokenizer, steps=3):
        assert host.lateral is not None
        frontal, lateral = host.frontal.augmentation, host.lateral.augmentation
        assert frontal is not None
        assert lateral is not None
        assert torch.equal(lateral.flip, frontal.flip[host.lateral_mask])
        flips |= set(lateral.flip.tolist())
        turned = frontal.rotation_degrees[host.lateral_mask]
        assert not (lateral.rotation_degrees == turned).any()
    assert flips == {True, False}


def test_a_damaged_lateral_matters_only_where_laterals_are_read(
    shards: Path, tokenizer: SentenceTokenizer, tmp_path: Path
) -> None:
    write_synthetic_shards(
        tmp_path, studies={"train": 8}, studies_a_shard=8, longest_side_px=40, views=("L", "PA")
    )
    entry = read_shard_index(tmp_path / "train-000000.index.json").samples[2]
    with (tmp_path / "train-000000.tar").open("r+b") as file:
        file.seek(entry.members["image0.jpg"].offset + 40)
        file.write(b"\x13\x37")
    for views, replaced in (("frontal", 0), ("frontal_lateral", 1)):
        data = configured(tmp_path, views=views, max_bad_fraction=0.2)
        (host,) = train(data, tokenizer, steps=1)
        assert host.replaced == replaced
        assert (entry.key in host.keys) == (not replaced)


def test_two_views_differ_and_change_from_epoch_to_epoch(
    shards: Path, tokenizer: SentenceTokenizer
) -> None:
    data = configured(shards, views="two_augmentations")
    seen: dict[str, list[Tensor]] = {}
    for batch in on_device(data, train(data, tokenizer, steps=6), train=True):
        assert batch.second_view is not None
        for key, *pair in zip(batch.keys, batch.images, batch.second_view, strict=True):
            seen.setdefault(key, []).extend(pair)
    assert {len(views) for views in seen.values()} == {4}
    for views in seen.values():
        for i in range(4):
            for other in views[:i]:
                assert (views[i] - other).abs().mean() > 0.02


def test_a_second_view_is_a_function_of_seed_epoch_and_sample(shards: Path) -> None:
    data = configured(shards, views="two_augmentations")
    split = opened(data)

    def draw(seed: int, epoch: int, position: int) -> object:
        sample = load_training_sample(split, data, seed=seed, epoch=epoch, position=position)
        assert sample.second_view is not None
        return sample.second_view.draw

    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({str(draw(*each)) for each in ((1, 2, 3), (0, 2, 3), (1, 0, 3), (1, 2, 0))}) == 4


def test_evaluation_augments_the_second_view_only_and_always_alike(
    shards: Path, tokenizer: SentenceTokenizer
) -> None:
    data = configured(shards, views="two_augmentations")
    first = on_device(data, evaluate(data, tokenizer), train=False)
    assert_same(first, on_device(data, evaluate(data, tokenizer), train=False))
    for batch in first:
        assert batch.second_view is not None
        assert batch.view_to_image is not None
        assert ((batch.images - batch.second_view).abs().mean(dim=(1, 2, 3)) > 0.02).all()
        assert torch.equal(batch.view_to_image[:, 0], torch.eye(2, 3).expand(8, 2, 3))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_the_maps_of_two_views_lead_to_the_same_pixels(
    shards: Path, tokenizer: SentenceTokenizer, training: bool
) -> None:
    """Each pixel of the second view, found in the first by way of the image, is as grey."""
    geometry = {"brightness_contrast": False, "gaussian_blur": False}
    data = configured(shards, views="two_augmentations", augmentation=geometry, image_size_px=64)
    line = (torch.arange(64) + 0.5) / 64
    y, x = torch.meshgrid(line, line, indexing="ij")
    positions = torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    hosts = train(data, tokenizer, steps=3) if training else evaluate(data, tokenizer)
    for batch in on_device(data, hosts, train=training):
        assert batch.second_view is not None
        assert batch.view_to_image is not None
        one, two = batch.view_to_image.unbind(1)
        in_image = two @ positions
        in_first = torch.linalg.solve(one[:, :, :2], in_image - one[:, :, 2:])
        sampled = torch.nn.functional.grid_sample(
            batch.images, (2 * in_first.mT - 1).unflatten(1, (64, 64)), align_corners=False
        )
        visible = ((in_first - 0.5).abs() < 0.45).all(1) & ((in_image - 0.5).abs() < 0.4).all(1)
        visible = visible.unflatten(1, (64, 64))[:, None]
        assert visible.float().mean() > 0.3
        mapped = (sampled - batch.second_view)[visible].abs().mean()
        unmapped = (batch.images - batch.second_view)[visible].abs().mean()
        assert mapped < 0.25 * unmapped


def test_labels_come_in_the_order_asked_for_with_nan_where_the_report_is_silent(
    shards: Path, tokenizer: SentenceTokenizer
) -> None:
    data = configured(shards, labels=LABELS)
    hosts = train(data, tokenizer, steps=3)
    values = set()
    for host, batch in zip(hosts, on_device(data, hosts, train=True), strict=True):
        assert batch.labels is not None
        assert batch.labels.dtype == torch.float32
        for record, row in zip(host.records, batch.labels.tolist(), strict=True):
            stored = [record.labels[name] for name in LABELS]
            assert [None if math.isnan(value) else value for value in row] == stored
            values |= set(stored)
    assert {None, 0.0, 1.0} <= values <= {None, 0.0, 1.0, -1.0}


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("Pneumona", r"'Pneumona': did you mean 'Pneumonia'\?"),
        ("zzz", r"known labels: Atelectasis, Cardiomegaly, .*Support Devices$"),
    ],
)
def test_an_unknown_label_is_refused_with_the_nearest_known(
    shards: Path, tokenizer: SentenceTokenizer, name: str, remedy: str
) -> None:
    data = configured(shards, labels=("Edema", name))
    with pytest.raises(InputError, match=remedy):
        TrainingLoader(opened(data), tokenizer, data, seed=0)
    with pytest.raises(InputError, match=remedy):
        EvaluationLoader(opened(data), tokenizer, data)


def test_shards_without_labels_say_so(tmp_path: Path, tokenizer: SentenceTokenizer) -> None:
    write_synthetic_shards(tmp_path, studies={"train": 8}, studies_a_shard=4, longest_side_px=40)
    data = configured(tmp_path, labels=("Edema",))
    with pytest.raises(InputError, match="build shards from a source with labels"):
        TrainingLoader(opened(data), tokenizer, data, seed=0)


def test_one_sentence_is_any_of_the_report_and_evaluation_reads_all(
    shards: Path, tokenizer: SentenceTokenizer
) -> None:
    data = configured(shards, sentences="one")
    split = opened(data)
    for position in (0, 5, 11):
        report = select_sentences(split.read(position).record.report, data.text_policy)
        drawn = [
            load_training_sample(split, data, seed=1, epoch=epoch, position=position).sentences
            for epoch in range(40 * len(report))
        ]
        assert {len(each) for each in drawn} == {1}
        counts = Counter(sentence for (sentence,) in drawn)
        assert counts.keys() == set(report)
        assert min(counts.values()) > 15
        assert load_evaluation_sample(split, data, position=position).sentences == report
    for host in train(data, tokenizer, steps=2):
        assert host.report.sentence_mask.shape[1] == 1


def test_half_normalisation_needs_no_statistics(shards: Path, tokenizer: SentenceTokenizer) -> None:
    plain, half = configured(shards), configured(shards, normalisation="half")
    hosts = evaluate(plain, tokenizer)
    manifest = opened(plain).manifest
    for one, other in zip(
        on_device(plain, hosts, train=False), on_device(half, hosts, train=False), strict=True
    ):
        pixels = one.images * manifest.pixel_std + manifest.pixel_mean
        torch.testing.assert_close(other.images, (pixels - 0.5) / 0.5, atol=1e-5, rtol=0)
        assert other.images.min() == -1  # black


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": "two_augmentations", "augmentation": {"enabled": False}}, "both views are the"),
        ({"labels": ("Edema", "Edema")}, "'Edema' is listed twice"),
        ({"augmentation": {"padded_crop_fraction": 0.5}}, "greater than 0.5"),
        ({"augmentation": {"random_resized_crop": False}}, "unknown key"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    shards: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        configured(shards, **changes)
