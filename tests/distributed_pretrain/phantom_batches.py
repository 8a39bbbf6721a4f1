"""Batches of the phantom's training split, as training and as evaluation see them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from data_shards.profiles import validate
from data_shards.records.study import StudyRecord
from distributed_pretrain.batch import Batch, ReportTokens, SampleRows
from distributed_pretrain.data.host_batch import HostBatch, HostImages
from distributed_pretrain.data.loader import EvaluationLoader, TrainingLoader
from distributed_pretrain.data.sample import LoadedView
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.share import Share
from distributed_pretrain.data.tokenization import SentenceTokenizer

STUDIES = 24


def configured(shards: Path, **changes: object) -> DataConfig:
    values: dict[str, object] = {
        "shards": shards,
        "image_size_px": 32,
        "global_batch": 8,
        "decode_threads": 2,
    }
    return validate(DataConfig, values | changes, where="test")


def opened(data: DataConfig) -> ShardSplit:
    return ShardSplit(data.files(), "train", data.text_policy)


def stored(data: DataConfig, keys: Iterable[str]) -> list[StudyRecord]:
    """What the shards know of the studies of these keys."""
    split = opened(data)
    positions = {split.key(position): position for position in range(len(split))}
    return [split.read(positions[key]) for key in keys]


def train(
    data: DataConfig,
    tokenizer: SentenceTokenizer,
    *,
    steps: int,
    consumed: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> list[Batch]:
    loader = TrainingLoader(opened(data), tokenizer, data, seed=7, share=Share(rank, world_size))
    stream = loader.batches(consumed)
    taken = list(islice(stream, steps))
    stream.close()
    return taken


def evaluate(
    data: DataConfig, tokenizer: SentenceTokenizer, *, rank: int = 0, world_size: int = 1
) -> list[Batch]:
    loader = EvaluationLoader(opened(data), tokenizer, data, Share(rank, world_size))
    return list(loader.batches())


def host_batch(views: list[LoadedView]) -> HostBatch:
    """Of such frontal images, and of nothing else."""
    ones = torch.ones(len(views), 1, dtype=torch.long)
    batch = Batch(
        keys=tuple(map(str, range(len(views)))),
        images=torch.empty(len(views), 1, 0, 0),
        report=ReportTokens(ones, ones.bool(), ones, ones.bool(), ones),
        sample_mask=torch.ones(len(views), dtype=torch.bool),
    )
    return HostBatch(batch, frontal=HostImages.stack(views))


def tensors(rows: SampleRows) -> dict[str, Tensor]:
    """Every tensor there is: `images`, `report.token_ids`, `lateral.mask`, ..."""
    found: dict[str, Tensor] = {}
    for field in fields(rows):
        value = getattr(rows, field.name)
        if isinstance(value, Tensor):
            found[field.name] = value
        elif isinstance(value, SampleRows):
            found |= {f"{field.name}.{name}": each for name, each in tensors(value).items()}
        elif isinstance(value, dict):
            found |= {f"{field.name}.{name}": each for name, each in value.items()}
    return found


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys == other.keys
        mine, its = tensors(one), tensors(other)
        assert mine.keys() == its.keys()
        for name, value in mine.items():
            assert torch.equal(value.nan_to_num(-9), its[name].nan_to_num(-9)), name
