"""Batches from betons are those from tars, bit for bit: order, draws, masks and resuming."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice, zip_longest
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_shards.__main__ import main
from data_shards.errors import InputError
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.batch import Batch
from distributed_pretrain.data.loader import EvaluationLoader, TrainingLoader
from distributed_pretrain.data.settings import AugmentationConfig, DataConfig
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.share import Share
from distributed_pretrain.data.tokenization import NoReports, ReportTokenizer, SentenceTokenizer
from tests.ffcv import needs_ffcv


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    write_synthetic_shards(
        tmp_path / "shards",
        studies={"train": 22},
        studies_a_shard=5,
        longest_side_px=64,
        views=("L", "PA", "AP"),
        labels=("Effusion",),
    )
    assert main(["beton", str(tmp_path / "shards")]) == 0
    return DataConfig(
        shards=tmp_path / "shards",
        image_size_px=32,
        global_batch=4,
        views="frontal_lateral",
        labels=("Effusion",),
        shuffle_buffer_shards=2,
        decode_threads=3,
        max_bad_fraction=0.2,
    )


def reading(data: DataConfig, reader: str) -> DataConfig:
    return data.model_copy(update={"reader": reader})


def opened(data: DataConfig) -> ShardSplit:
    return ShardSplit(data.files(), "train", data.text_policy)


def trained(
    data: DataConfig, tokenizer: SentenceTokenizer, *, consumed: int = 0, share: Share | None = None
) -> list[Batch]:
    """Seven steps: into a second epoch."""
    loader = TrainingLoader(opened(data), tokenizer, data, share or Share(), seed=7)
    batches = loader.batches(consumed)
    taken = list(islice(batches, 7 - consumed // data.global_batch))
    batches.close()
    return taken


def evaluated(data: DataConfig, tokenizer: ReportTokenizer) -> list[Batch]:
    return list(EvaluationLoader(opened(data), tokenizer, data).batches())


def tensors(batch: Batch) -> list[Tensor]:
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    batch.map_tensors(keep)
    return found


def assert_same(ours: Sequence[Batch], theirs: Sequence[Batch]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert (one.records, one.replaced) == (other.records, other.replaced)
        for here, there in zip_longest(tensors(one), tensors(other)):
            torch.testing.assert_close(here, there, rtol=0, atol=0, equal_nan=True)


@needs_ffcv
@pytest.mark.parametrize("take", [trained, evaluated])
def test_batches_are_those_of_the_tars(
    data: DataConfig,
    small_tokenizer: SentenceTokenizer,
    take: Callable[[DataConfig, SentenceTokenizer], list[Batch]],
) -> None:
    theirs = take(data, small_tokenizer)
    assert_same(take(reading(data, "ffcv"), small_tokenizer), theirs)
    assert len(tensors(theirs[0])) >= 6


@needs_ffcv
def test_a_run_goes_on_from_the_other_files_on_other_ranks(
    data: DataConfig, small_tokenizer: SentenceTokenizer
) -> None:
    whole = trained(data, small_tokenizer)
    betons = reading(data, "ffcv")
    assert_same(trained(betons, small_tokenizer, consumed=12), whole[3:])
    shares = [
        trained(betons, small_tokenizer, consumed=12, share=Share(rank, 2)) for rank in (0, 1)
    ]
    for step, (first, second) in enumerate(zip(*shares, strict=True), 3):
        assert torch.equal(torch.cat([first.images, second.images]), whole[step].images)


@needs_ffcv
def test_a_process_of_its_own_opens_the_beton_itself(
    data: DataConfig, small_tokenizer: SentenceTokenizer
) -> None:
    betons = reading(data, "ffcv")
    apart = betons.model_copy(update={"loader_processes": 1})
    assert_same(trained(apart, small_tokenizer), trained(betons, small_tokenizer))


@needs_ffcv
def test_masks_and_boxes_are_in_the_beton(phantom_shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for path in phantom_shards.iterdir():
        (folder / path.name).symlink_to(path)
    assert main(["beton", str(folder)]) == 0
    data = DataConfig(
        shards=folder,
        image_size_px=32,
        global_batch=4,
        masks=("Cardiomegaly",),
        boxes=("Cardiomegaly",),
        text_policy="no_text",
        augmentation=AugmentationConfig(enabled=False),
    )
    theirs, ours = (evaluated(reading(data, reader), NoReports()) for reader in ("tar", "ffcv"))
    assert_same(ours, theirs)
    assert any(batch.masks is not None and batch.masks.any() for batch in ours)


@needs_ffcv
def test_the_threads_of_torch_stay_what_they_are(data: DataConfig) -> None:
    before = torch.get_num_threads()
    opened(reading(data, "ffcv"))
    assert torch.get_num_threads() == before


def test_betons_are_no_files_of_a_store(tmp_path: Path) -> None:
    data = DataConfig.model_validate({"shards": "s3://bucket/shards", "reader": "ffcv"})
    with pytest.raises(InputError, match=r"data\.reader=ffcv reads a folder of this machine"):
        data.files()
