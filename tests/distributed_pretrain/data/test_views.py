"""Laterals and second augmentations, from phantom shards to batches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_shards.records.manifest import read_shard_index
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.data.tokenization import SentenceTokenizer
from tests.distributed_pretrain.data.one_sample import load_sample
from tests.distributed_pretrain.phantom_batches import (
    STUDIES,
    assert_same,
    configured,
    evaluate,
    opened,
    stored,
    tensors,
    train,
)

WITH_LATERALS: dict[str, object] = {
    "views": "frontal_lateral",
    "labels": ("Pneumonia", "No Finding"),
    "sentences": "one",
}
TWICE: dict[str, object] = {"views": "two_augmentations"}


@pytest.mark.parametrize("asked", [WITH_LATERALS, TWICE], ids=["laterals", "two augmentations"])
def test_threads_and_resuming_change_no_field(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer, asked: dict[str, object]
) -> None:
    data = configured(phantom_shards, **asked)
    whole = train(data, small_tokenizer, steps=7)
    slow = data.model_copy(update={"decode_threads": 1, "prefetch_batches": 1})
    assert_same(train(slow, small_tokenizer, steps=7), whole)
    for done in (1, 3, 5):
        rest = train(data, small_tokenizer, steps=7 - done, consumed=8 * done)
        assert_same(rest, whole[done:])


@pytest.mark.parametrize("asked", [WITH_LATERALS, TWICE], ids=["laterals", "two augmentations"])
def test_the_shares_of_two_ranks_join_in_every_field(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer, asked: dict[str, object]
) -> None:
    data = configured(phantom_shards, **asked)
    whole = train(data, small_tokenizer, steps=4)
    shares = [train(data, small_tokenizer, steps=4, rank=r, world_size=2) for r in range(2)]
    for batch, *parts in zip(whole, *shares, strict=True):
        pieces = [tensors(part) for part in parts]
        for name, value in tensors(batch).items():
            if not name.startswith("report."):  # padded to the longest report of a share
                joined = torch.cat([piece[name] for piece in pieces])
                # Sums of pixels in another order: a share is resized with other neighbours.
                torch.testing.assert_close(joined, value, atol=1e-5, rtol=0, equal_nan=True)


@pytest.mark.parametrize("asked", [WITH_LATERALS, TWICE], ids=["laterals", "two augmentations"])
def test_asking_for_more_leaves_the_frontal_images_as_they_were(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer, asked: dict[str, object]
) -> None:
    plain, more = configured(phantom_shards), configured(phantom_shards, **asked)
    for training in (True, False):
        ours, theirs = (
            train(data, small_tokenizer, steps=4) if training else evaluate(data, small_tokenizer)
            for data in (plain, more)
        )
        for one, other in zip(ours, theirs, strict=True):
            assert one.keys == other.keys
            assert torch.equal(one.images, other.images)
            assert (one.lateral, one.second_view, one.labels) == (None, None, None)


@pytest.mark.parametrize("asked", [WITH_LATERALS, TWICE], ids=["laterals", "two augmentations"])
def test_evaluation_on_five_ranks_shows_every_study_once_in_every_field(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer, asked: dict[str, object]
) -> None:
    """24 studies in tens: the last global batch of four is filled up to one row a rank."""
    data = configured(phantom_shards, global_batch=10, **asked)

    def studies(world_size: int) -> dict[str, dict[str, Tensor]]:
        found: dict[str, dict[str, Tensor]] = {}
        for rank in range(world_size):
            for batch in evaluate(data, small_tokenizer, rank=rank, world_size=world_size):
                every = tensors(batch).items()
                values = {name: each for name, each in every if not name.startswith("report.")}
                for row, key in enumerate(batch.keys):
                    if batch.sample_mask[row]:
                        assert key not in found
                        found[key] = {name: value[row] for name, value in values.items()}
        return found

    alone, together = studies(1), studies(5)
    assert len(alone) == STUDIES
    assert together.keys() == alone.keys()
    for key, values in alone.items():
        for name, value in values.items():
            torch.testing.assert_close(
                together[key][name], value, atol=1e-5, rtol=0, equal_nan=True
            )


def test_phantom_studies_have_laterals_but_not_all(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer
) -> None:
    data = configured(phantom_shards, views="frontal_lateral")
    split = opened(data)
    counts = [len(split.read(i).lateral_images()) for i in range(len(split))]
    assert Counter(counts).keys() == {0, 1}
    for batch in train(data, small_tokenizer, steps=3):
        assert batch.lateral is not None
        laterals, mask = batch.lateral.images, batch.lateral.mask
        known = stored(data, batch.keys)
        assert mask.tolist() == [bool(record.lateral_images()) for record in known]
        assert laterals.shape == batch.images.shape
        assert not laterals[~mask].any()
        assert (laterals[mask].flatten(1).std(dim=1) > 0.05).all()


def test_evaluation_shows_the_lateral_as_it_is_stored(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer
) -> None:
    data = configured(phantom_shards, views="frontal_lateral")
    split, row = opened(data), 0
    for batch in evaluate(data, small_tokenizer):
        assert batch.lateral is not None
        for lateral in batch.lateral.images:
            sample = load_sample(split, data, position=row)
            if sample.lateral is None:
                assert not lateral.any()
            else:
                stored = split.read(row).images[sample.record.lateral_images()[0]]
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
    tmp_path: Path, small_tokenizer: SentenceTokenizer
) -> None:
    write_synthetic_shards(
        tmp_path, studies={"train": 8}, studies_a_shard=4, longest_side_px=40, views=("PA",)
    )
    data = configured(tmp_path, views="frontal_lateral")
    (batch,) = train(data, small_tokenizer, steps=1)
    assert batch.lateral is not None
    assert not batch.lateral.mask.any()
    assert batch.lateral.images.shape == batch.images.shape
    assert not batch.lateral.images.any()


def test_a_lateral_is_flipped_with_its_frontal_and_otherwise_drawn_by_itself(
    phantom_shards: Path,
) -> None:
    data, flips = configured(phantom_shards, views="frontal_lateral"), set()
    split = opened(data)
    for position in range(len(split)):
        sample = load_sample(split, data, seed=7, epoch=0, position=position)
        if sample.lateral is None:
            continue
        frontal, lateral = sample.frontal.draw, sample.lateral.draw
        assert frontal is not None
        assert lateral is not None
        assert lateral.flip == frontal.flip
        assert lateral.rotation_degrees != frontal.rotation_degrees
        flips.add(lateral.flip)
    assert flips == {True, False}


def test_a_damaged_lateral_matters_only_where_laterals_are_read(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer, tmp_path: Path
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
        (batch,) = train(data, small_tokenizer, steps=1)
        assert batch.replaced == replaced
        assert (entry.key in batch.keys) == (not replaced)


def test_two_views_differ_and_change_from_epoch_to_epoch(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer
) -> None:
    data = configured(phantom_shards, views="two_augmentations")
    seen: dict[str, list[Tensor]] = {}
    for batch in train(data, small_tokenizer, steps=6):
        assert batch.second_view is not None
        for key, *pair in zip(batch.keys, batch.images, batch.second_view.images, strict=True):
            seen.setdefault(key, []).extend(pair)
    assert {len(views) for views in seen.values()} == {4}
    for views in seen.values():
        for i in range(4):
            for other in views[:i]:
                assert (views[i] - other).abs().mean() > 0.02


def test_a_second_view_is_a_function_of_seed_epoch_and_sample(phantom_shards: Path) -> None:
    data = configured(phantom_shards, views="two_augmentations")
    split = opened(data)

    def draw(seed: int, epoch: int, position: int) -> object:
        sample = load_sample(split, data, seed=seed, epoch=epoch, position=position)
        assert sample.second_view is not None
        return sample.second_view.draw

    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({str(draw(*each)) for each in ((1, 2, 3), (0, 2, 3), (1, 0, 3), (1, 2, 0))}) == 4


def test_evaluation_augments_the_second_view_only_and_always_alike(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer
) -> None:
    data = configured(phantom_shards, views="two_augmentations")
    first = evaluate(data, small_tokenizer)
    assert_same(first, evaluate(data, small_tokenizer))
    for batch in first:
        second = batch.second_view
        assert second is not None
        assert ((batch.images - second.images).abs().mean(dim=(1, 2, 3)) > 0.02).all()
        assert torch.equal(second.view_to_image[:, 0], torch.eye(2, 3).expand(8, 2, 3))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_the_maps_of_two_views_lead_to_the_same_pixels(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer, training: bool
) -> None:
    """Each pixel of the second view, found in the first by way of the image, is as grey."""
    geometry = {"brightness_contrast": False, "gaussian_blur": False}
    data = configured(
        phantom_shards, views="two_augmentations", augmentation=geometry, image_size_px=64
    )
    line = (torch.arange(64) + 0.5) / 64
    y, x = torch.meshgrid(line, line, indexing="ij")
    positions = torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    for batch in (
        train(data, small_tokenizer, steps=3) if training else evaluate(data, small_tokenizer)
    ):
        second = batch.second_view
        assert second is not None
        one, two = second.view_to_image.unbind(1)
        in_image = two @ positions
        in_first = torch.linalg.solve(one[:, :, :2], in_image - one[:, :, 2:])
        sampled = torch.nn.functional.grid_sample(
            batch.images, (2 * in_first.mT - 1).unflatten(1, (64, 64)), align_corners=False
        )
        visible = ((in_first - 0.5).abs() < 0.45).all(1) & ((in_image - 0.5).abs() < 0.4).all(1)
        visible = visible.unflatten(1, (64, 64))[:, None]
        assert visible.float().mean() > 0.3
        mapped = (sampled - second.images)[visible].abs().mean()
        unmapped = (batch.images - second.images)[visible].abs().mean()
        assert mapped < 0.25 * unmapped
