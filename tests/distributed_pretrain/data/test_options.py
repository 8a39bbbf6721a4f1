"""Labels, single sentences and normalisation, as a profile asks for them."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from data_shards.errors import InputError
from data_shards.records.policies import select_sentences
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.data.loader import EvaluationLoader, TrainingLoader
from distributed_pretrain.data.tokenization import SentenceTokenizer
from tests.distributed_pretrain.data.one_sample import load_sample
from tests.distributed_pretrain.phantom_batches import (
    configured,
    evaluate,
    opened,
    stored,
    train,
)

LABELS = ("Pneumonia", "Cardiomegaly", "No Finding")


def test_labels_come_in_the_order_asked_for_with_nan_where_the_report_is_silent(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer
) -> None:
    data = configured(phantom_shards, labels=LABELS)
    values = set()
    for batch in train(data, small_tokenizer, steps=3):
        assert batch.labels is not None
        assert batch.labels.dtype == torch.float32
        for record, row in zip(stored(data, batch.keys), batch.labels.tolist(), strict=True):
            known = [record.labels[name] for name in LABELS]
            assert [None if math.isnan(value) else value for value in row] == known
            values |= set(known)
    assert {None, 0.0, 1.0} <= values <= {None, 0.0, 1.0, -1.0}


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("Pneumona", r"'Pneumona': did you mean 'Pneumonia'\?"),
        ("zzz", r"known labels: Atelectasis, Cardiomegaly, .*Support Devices$"),
    ],
)
def test_an_unknown_label_is_refused_with_the_nearest_known(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer, name: str, remedy: str
) -> None:
    data = configured(phantom_shards, labels=("Edema", name))
    with pytest.raises(InputError, match=remedy):
        TrainingLoader(opened(data), small_tokenizer, data, seed=0)
    with pytest.raises(InputError, match=remedy):
        EvaluationLoader(opened(data), small_tokenizer, data)


def test_shards_without_labels_say_so(tmp_path: Path, small_tokenizer: SentenceTokenizer) -> None:
    write_synthetic_shards(tmp_path, studies={"train": 8}, studies_a_shard=4, longest_side_px=40)
    data = configured(tmp_path, labels=("Edema",))
    with pytest.raises(InputError, match="build shards from a source with labels"):
        TrainingLoader(opened(data), small_tokenizer, data, seed=0)


def test_one_sentence_is_any_of_the_report_and_evaluation_reads_all(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer
) -> None:
    data = configured(phantom_shards, sentences="one")
    split = opened(data)
    for position in (0, 5, 11):
        report = select_sentences(split.read(position).report, data.text_policy)
        drawn = [
            load_sample(split, data, seed=1, epoch=epoch, position=position).sentences
            for epoch in range(40 * len(report))
        ]
        assert {len(each) for each in drawn} == {1}
        counts = Counter(sentence for (sentence,) in drawn)
        assert counts.keys() == set(report)
        assert min(counts.values()) > 15
        assert load_sample(split, data, position=position).sentences == report
    for batch in train(data, small_tokenizer, steps=2):
        assert batch.report.sentence_mask.shape[1] == 1


def test_half_normalisation_needs_no_statistics(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer
) -> None:
    plain, half = configured(phantom_shards), configured(phantom_shards, normalisation="half")
    manifest = opened(plain).manifest
    ours, theirs = (evaluate(data, small_tokenizer) for data in (plain, half))
    for one, other in zip(ours, theirs, strict=True):
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
    phantom_shards: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        configured(phantom_shards, **changes)


def test_a_batch_without_rows_ends_instead_of_waiting(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer
) -> None:
    data = configured(phantom_shards)
    loader = EvaluationLoader(opened(data), small_tokenizer, data)
    with pytest.raises(ValueError, match="empty"):
        loader.batch_of([])
