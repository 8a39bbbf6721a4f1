"""Batches of the phantom's training split, as training and as evaluation see them."""

from __future__ import annotations

from dataclasses import fields
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from data_shards.profiles import validate
from distributed_pretrain.batch import Batch
from distributed_pretrain.data.augmentation import DeviceTransform
from distributed_pretrain.data.host_batch import HostBatch
from distributed_pretrain.data.loader import EvaluationLoader, TrainingLoader
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.tokenization import SentenceTokenizer

CPU = torch.device("cpu")
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


def evaluate(
    data: DataConfig, tokenizer: SentenceTokenizer, *, rank: int = 0, world_size: int = 1
) -> list[HostBatch]:
    loader = EvaluationLoader(opened(data), tokenizer, data, rank=rank, world_size=world_size)
    return list(loader.batches())


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
