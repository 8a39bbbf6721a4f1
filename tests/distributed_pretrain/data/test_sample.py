"""Samples that are read together are those of each alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import Tensor

from distributed_pretrain.data import sample
from distributed_pretrain.data.host_batch import HostImages, collate
from distributed_pretrain.data.quarantine import BadSampleError
from distributed_pretrain.data.sample import LoadedSample, load_samples
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.stored_images import decode_stored
from distributed_pretrain.data.tokenization import NoReports
from tests.distributed_pretrain.data.one_sample import load_sample
from tests.distributed_pretrain.phantom_batches import configured, opened


@pytest.fixture
def data(phantom_shards: Path) -> DataConfig:
    return configured(phantom_shards, views="frontal_lateral")


def loaded(data: DataConfig, positions: Sequence[int]) -> list[LoadedSample]:
    found = load_samples(opened(data), data, positions, seed=5, epoch=1)
    return [each for each in found if isinstance(each, LoadedSample)]


def frontal(samples: Sequence[LoadedSample], data: DataConfig) -> HostImages:
    return collate(samples, tokenizer=NoReports(), config=data).frontal


def test_samples_that_are_loaded_together_are_those_of_each_alone(data: DataConfig) -> None:
    positions = [3, 0, 3, 7]
    for position, found in zip(positions, loaded(data, positions), strict=True):
        alone = load_sample(opened(data), data, position=position, seed=5, epoch=1)
        assert (found.record.key, found.sentences) == (alone.record.key, alone.sentences)
        assert found.frontal.draw == alone.frontal.draw
        assert (found.frontal.pixels == alone.frontal.pixels).all()


def test_one_that_cannot_be_decoded_leaves_the_others_as_they_are(
    phantom_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads: list[int] = []

    def second_fails(payload: memoryview, **size: int) -> Tensor:
        payloads.append(len(payload))
        if len(payloads) == 2:
            raise ValueError("cut short")
        return decode_stored(payload, **size)

    monkeypatch.setattr(sample, "decode_stored", second_fails)
    data = configured(phantom_shards)
    found = load_samples(opened(data), data, [0, 3, 7], seed=5, epoch=1)
    assert [isinstance(each, BadSampleError) for each in found] == [False, True, False]
    samples = [each for each in found if isinstance(each, LoadedSample)]
    pixels = frontal(samples, data).pixels
    assert len(pixels) == 2
    monkeypatch.undo()
    alone = [*loaded(data, [0]), *loaded(data, [7])]
    assert (pixels == frontal(alone, data).pixels).all()
