"""How much quicker the input pipeline is than torchvision's per-sample one, in one run.

Ours is the whole training loader (shards, checksums, records, tokens, decoding) and the batched
augmentation, the next batches decoded meanwhile. Torchvision's is what
users write: PIL images, `transforms.v2`, a DataLoader with one worker process a core; it gets its
JPEGs from memory and no reports. Both end in normalised float images on the CPU.
"""

from __future__ import annotations

import io
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from data_shards.processes import available_cores
from data_shards.profiles import Config, parse_overrides, validate
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.data.augmentation import DeviceTransform
from distributed_pretrain.data.host_batch import HostBatch
from distributed_pretrain.data.loader import TrainingLoader
from distributed_pretrain.data.settings import AugmentationConfig, DataConfig
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.tokenization import SentenceTokenizer
from distributed_pretrain.data.tokenizer_training import train_wordpiece

TARGET_RATIO = 8
AIM_RATIO = 12


class LoaderBenchmarkConfig(Config):
    """`images` go through our pipeline a round, `torchvision_images` through torchvision's."""

    images: int = Field(default=1024, ge=64)
    torchvision_images: int = Field(default=256, ge=64)
    distinct_images: int = Field(default=256, ge=64)
    longest_side_px: int = Field(default=320, ge=32)
    image_size_px: int = Field(default=224, ge=32)
    batch: int = Field(default=64, ge=8)
    cores: int = Field(default_factory=available_cores, ge=1)
    rounds: int = Field(default=3, ge=1)


def run(overrides: Sequence[str]) -> None:
    """Measure and print a table, then one line of JSON. Raises InputError for a bad override."""
    config = validate(LoaderBenchmarkConfig, parse_overrides(overrides), where="benchmark loader")
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(config, Path(folder))
    ratio = rates["pipeline"] / rates["torchvision pipeline"]
    print(f"images/s on {config.cores} cores, {config.longest_side_px} px stored", end=" ")
    print(f"-> {config.image_size_px} px, batches of {config.batch}")
    for name, rate in rates.items():
        print(f"  {name:32s} {rate:9.0f}")
    verdict = "reached" if ratio >= TARGET_RATIO else "MISSED"
    print(f"  ratio {ratio:.1f} (target {TARGET_RATIO}: {verdict}; aim {AIM_RATIO})")
    print(json.dumps({"images_per_second": rates, "ratio": ratio, "target": TARGET_RATIO}))


def measure(config: LoaderBenchmarkConfig, folder: Path) -> dict[str, float]:
    """Images a second by stage. Pipelines are measured in turns, and the best round counts."""
    loader = _training_loader(config, folder)
    torchvision_loader = _torchvision_loader(config, folder)
    transform = _device_transform(config, AugmentationConfig())
    device = torch.device("cpu")
    ours, theirs = [], []
    for _ in range(config.rounds):
        theirs.append(_rate(iter(torchvision_loader), config.torchvision_images, lambda _: None))
        stream = loader.batches()
        ours.append(_rate(stream, config.images, lambda host: transform(host, device, train=True)))
        stream.close()
    stream = loader.batches()
    decode = _rate(stream, config.images, lambda _: None)
    host = next(stream)
    stream.close()
    return {
        "bare JPEG decode, one thread": _decode_rate(config, folder),
        "loader without augmentation": decode,
        **_augmentation_rates(config, host),
        "pipeline": max(ours),
        "torchvision pipeline": max(theirs),
    }


def _training_loader(config: LoaderBenchmarkConfig, folder: Path) -> TrainingLoader:
    write_synthetic_shards(
        folder / "shards",
        studies={"train": config.distinct_images},
        studies_a_shard=64,
        longest_side_px=config.longest_side_px,
    )
    data = DataConfig(
        shards=folder / "shards",
        image_size_px=config.image_size_px,
        global_batch=config.batch,
        decode_threads=config.cores,
    )
    split = ShardSplit.open(data.shards, "train", data.text_policy)
    reports = [split.read(i).record.report.raw for i in range(len(split))]
    train_wordpiece(reports, folder / "tokenizer", vocabulary_size=400)
    return TrainingLoader(split, SentenceTokenizer.load(folder / "tokenizer"), data, seed=0)


def _device_transform(config: LoaderBenchmarkConfig, ops: AugmentationConfig) -> DeviceTransform:
    return DeviceTransform(ops, image_size_px=config.image_size_px, pixel_mean=0.5, pixel_std=0.22)


def _rate(batches: Iterator[Any], images: int, consume: Callable[[Any], object]) -> float:
    """Images a second after a warm-up of two batches (threads, workers and caches are ready)."""
    for batch in islice(batches, 2):
        consume(batch)
    started, done = time.perf_counter(), 0
    for batch in batches:
        consume(batch)
        done += len(batch.keys) if isinstance(batch, HostBatch) else len(batch)
        if done >= images:
            break
    return done / (time.perf_counter() - started)


def _decode_rate(config: LoaderBenchmarkConfig, folder: Path) -> float:
    images = [
        torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in _jpegs(folder / "shards")
    ]
    started = time.perf_counter()
    for number in range(config.images):
        decode_image(images[number % len(images)], ImageReadMode.GRAY)
    return config.images / (time.perf_counter() - started)


def _augmentation_rates(config: LoaderBenchmarkConfig, host: HostBatch) -> dict[str, float]:
    """The batched augmentation alone: whole, only resizing, and resizing with one more step."""
    nothing = dict.fromkeys(
        ("horizontal_flip", "affine", "brightness_contrast", "gaussian_blur"), False
    )
    variants = {
        "augmentation, whole": {},
        "  crop and normalise only": nothing,
        "  crop + affine": nothing | {"affine": True},
        "  crop + brightness, contrast": nothing | {"brightness_contrast": True},
        "  crop + blur": nothing | {"gaussian_blur": True},
    }
    return {
        name: _augmentation_rate(config, host, AugmentationConfig(**switches))
        for name, switches in variants.items()
    }


def _augmentation_rate(
    config: LoaderBenchmarkConfig, host: HostBatch, ops: AugmentationConfig
) -> float:
    transform, cpu = _device_transform(config, ops), torch.device("cpu")
    batches = itertools.repeat(host, 2 + config.images // config.batch)
    return _rate(batches, config.images, lambda each: transform(each, cpu, train=True))


class _JpegsInMemory(Dataset[Tensor]):
    def __init__(self, jpegs: list[bytes], images: int, side_px: int) -> None:
        self._jpegs = jpegs
        self._images = images
        ours = AugmentationConfig()
        # Of the usual forms (PIL, uint8 tensors, float tensors) this is the quickest.
        self._transform = v2.Compose(
            [
                v2.RandomResizedCrop(side_px, ours.crop_area_fraction, ours.crop_aspect_ratio),
                v2.RandomHorizontalFlip(ours.flip_probability),
                v2.RandomAffine(
                    list(ours.rotation_degrees), (ours.translation_fraction,) * 2, ours.scale
                ),
                v2.ColorJitter(brightness=ours.brightness, contrast=ours.contrast),
                v2.GaussianBlur(ours.blur_kernel_px, ours.blur_sigma_px),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5], [0.22]),
            ]
        )

    def __len__(self) -> int:
        return self._images

    def __getitem__(self, index: int) -> Tensor:
        image = Image.open(io.BytesIO(self._jpegs[index % len(self._jpegs)]))
        augmented: Tensor = self._transform(image)
        return augmented


def _torchvision_loader(config: LoaderBenchmarkConfig, folder: Path) -> DataLoader[Tensor]:
    warm_up = 2 * config.batch
    dataset = _JpegsInMemory(
        _jpegs(folder / "shards"), config.torchvision_images + warm_up, config.image_size_px
    )
    return DataLoader(dataset, config.batch, num_workers=config.cores)


def _jpegs(folder: Path) -> list[bytes]:
    split = ShardSplit.open(folder, "train", "lovt")
    return [split.read(position).image_bytes(0) for position in range(len(split))]
