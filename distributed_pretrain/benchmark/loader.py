"""How much quicker the input pipeline is than torchvision's per-sample one, in one run.

Ours is the whole training loader (shards, checksums, records, tokens, decoding, the batched
augmentation), the next batches decoded meanwhile. Torchvision's is what users write: PIL images,
`transforms.v2`, a DataLoader with one worker process a core; it gets its JPEGs from memory and no
reports. Both end in normalised float images on the CPU.
"""

from __future__ import annotations

import io
import tempfile
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import count, cycle, islice, repeat
from pathlib import Path

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from data_shards.processes import available_cores
from data_shards.profiles import Config
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.benchmark import harness
from distributed_pretrain.data.augmentation import DeviceTransform
from distributed_pretrain.data.host_batch import HostBatch, collate
from distributed_pretrain.data.loader import TrainingLoader
from distributed_pretrain.data.prefetch import prefetch_in_order
from distributed_pretrain.data.sample import load_sample
from distributed_pretrain.data.settings import AugmentationConfig, DataConfig
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.tokenization import SentenceTokenizer
from distributed_pretrain.data.tokenizer_training import build_tokenizer, train_wordpiece

TARGET_RATIO = 8
AIM_RATIO = 12
WARMUP_BATCHES = 2
_NOTHING = dict.fromkeys(
    ("horizontal_flip", "affine", "brightness_contrast", "gaussian_blur"), False
)
AUGMENTATIONS = {
    "augmentation, whole": AugmentationConfig(),
    "  crop and normalise only": AugmentationConfig(**_NOTHING),
    "  crop + affine": AugmentationConfig(**_NOTHING | {"affine": True}),
    "  crop + brightness, contrast": AugmentationConfig(**_NOTHING | {"brightness_contrast": True}),
    "  crop + blur": AugmentationConfig(**_NOTHING | {"gaussian_blur": True}),
}


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
    """Measure and print. Raises InputError for a bad override."""
    config = harness.read_settings(LoaderBenchmarkConfig, overrides, verb="loader")
    print(f"images/s on {config.cores} cores, {config.longest_side_px} px stored", end=" ")
    print(f"-> {config.image_size_px} px, batches of {config.batch}")
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(config, Path(folder))
    table = harness.Table({"stage": "<32", "images/s": ">9.0f"})
    for rate in rates.items():
        table.row(*rate)
    ratio = rates["pipeline"] / rates["torchvision pipeline"]
    harness.conclude(
        [
            harness.Target(
                f"pipeline / torchvision's (aim {AIM_RATIO})", ratio, TARGET_RATIO, at_least=True
            )
        ],
        {"images_per_second": rates, "ratio": ratio, "target": TARGET_RATIO},
    )


def measure(config: LoaderBenchmarkConfig, folder: Path) -> dict[str, float]:
    """Images a second by stage. The pipelines take turns, and the best round counts."""
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
    split = ShardSplit(data.shards, "train", data.text_policy)
    build_tokenizer(folder / "tokenizer", split, partial(train_wordpiece, vocabulary_size=400))
    tokenizer = SentenceTokenizer.load(folder / "tokenizer")
    jpegs = [split.read(position).image_bytes(0) for position in range(len(split))]

    loader = TrainingLoader(split, tokenizer, data, seed=0)
    theirs = _torchvision_loader(config, jpegs)
    rate = partial(_rate, images=config.images, batch=config.batch)

    def rate_of_pipeline() -> float:
        with closing(loader.batches()) as stream:
            return rate(stream)

    def rate_of_torchvision() -> float:
        return _rate(iter(theirs), images=config.torchvision_images, batch=config.batch)

    rounds = harness.take_turns(
        {"pipeline": rate_of_pipeline, "torchvision pipeline": rate_of_torchvision},
        turns=config.rounds,
        warmup=0,
    )
    with closing(_host_batches(split, tokenizer, data)) as stream:
        without_augmentation = rate(stream)
        host = next(stream)
    return {
        "bare JPEG decode, one thread": _rate(_decoded(jpegs), images=config.images, batch=1),
        "loader without augmentation": without_augmentation,
        **{name: rate(_augmented(config, ops, host)) for name, ops in AUGMENTATIONS.items()},
        **{name: max(rates) for name, rates in rounds.items()},
    }


def _rate(stream: Iterator[object], *, images: int, batch: int) -> float:
    """Images a second after a warm-up of two batches (threads, workers and caches are ready)."""
    batches = -(-images // batch)
    _exhaust(islice(stream, WARMUP_BATCHES))
    return batches * batch / harness.seconds_of(lambda: _exhaust(islice(stream, batches)))


def _exhaust(stream: Iterator[object]) -> None:
    deque(stream, maxlen=0)


def _host_batches(
    split: ShardSplit, tokenizer: SentenceTokenizer, data: DataConfig
) -> Generator[HostBatch]:
    """The loader's batches as they are before the augmentation."""
    positions = cycle(range(len(split)))
    join = partial(collate, tokenizer=tokenizer, config=data)
    return prefetch_in_order(
        ((list(islice(positions, data.global_batch)), join) for _ in count()),
        lambda position: load_sample(split, data, position=position, epoch=0),
        threads=data.decode_threads or 1,
        prefetch_batches=data.prefetch_batches,
    )


def _augmented(
    config: LoaderBenchmarkConfig, ops: AugmentationConfig, host: HostBatch
) -> Iterator[object]:
    """One batch over and over."""
    transform = DeviceTransform(
        ops, image_size_px=config.image_size_px, pixel_mean=0.5, pixel_std=0.22
    )
    return (transform(each, harness.CPU, train=True) for each in repeat(host))


def _decoded(jpegs: Sequence[bytes]) -> Iterator[Tensor]:
    images = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]
    return (decode_image(image, ImageReadMode.GRAY) for image in cycle(images))


class _JpegsInMemory(Dataset[Tensor]):
    def __init__(self, jpegs: Sequence[bytes], images: int, side_px: int) -> None:
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


def _torchvision_loader(
    config: LoaderBenchmarkConfig, jpegs: Sequence[bytes]
) -> DataLoader[Tensor]:
    batches = WARMUP_BATCHES + -(-config.torchvision_images // config.batch)
    dataset = _JpegsInMemory(jpegs, batches * config.batch, config.image_size_px)
    return DataLoader(dataset, config.batch, num_workers=config.cores)
