"""How much quicker the input pipeline is than torchvision's per-sample one, in one run.

Ours is the whole training loader (shards, checksums, records, tokens, decoding, the batched
augmentation), the next batches decoded meanwhile. Torchvision's is what users write: PIL images,
`transforms.v2`, a DataLoader with one worker process a core; it gets its JPEGs from memory and no
reports. Both end in normalised float images on the CPU.

FFCV's own loader reads the beton of the same images: cut and resized, with their records as bytes.
Ours beside it reads tars or that beton and draws nothing, but also checks sums, parses records and
makes tokens. Twice: as bytes for a device (which then resizes ours), and resized and normalised on
the CPU.

What nothing passes is decoding alone, on all cores; ours without augmentation is held against it,
by threads and by a process a core. Plain webdataset decodes images and records. How long the
interpreter's lock is held is what more cores cannot hide.
"""

from __future__ import annotations

import importlib.util
import io
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from typing import cast

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from data_shards.processes import available_cores
from data_shards.profiles import Config
from data_shards.remote.settings import CacheConfig
from data_shards.remote.shards import shard_files
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.benchmark import harness
from distributed_pretrain.benchmark.loader_sources import plain_webdataset, served
from distributed_pretrain.benchmark.lock_held import lock_held_ms
from distributed_pretrain.data.augmentation import DeviceTransform
from distributed_pretrain.data.loader import TrainingLoader
from distributed_pretrain.data.settings import AugmentationConfig, DataConfig
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.tokenization import SentenceTokenizer
from distributed_pretrain.data.tokenizer_training import build_tokenizer, train_wordpiece

TARGET_OF_FFCV = 0.9
TARGET_OF_DECODE = 0.9
TARGET_LOCK_HELD_MS = 0.1
TARGET_RATIO = 8
AIM_RATIO = 12
WARMUP_BATCHES = 8
UNAUGMENTED = "without augmentation, in threads", "without augmentation, a process a core"
# Where batches are handed over beside FFCV's, and whether they are normalised there.
ENDS = {"for a device": False, "on the CPU": True}


class Settings(Config):
    """`images` go through our pipeline a round, a quarter, all of them distinct, through theirs.

    `ffcv`: whether its loader and ours on its file are measured, and `store` whether ours on shards
    from a web server; by default where what they need is installed.
    """

    images: int = Field(default=1024, ge=256)
    longest_side_px: int = Field(default=320, ge=32)
    image_size_px: int = Field(default=224, ge=32)
    batch: int = Field(default=64, ge=8)
    cores: int = Field(default_factory=available_cores, ge=1)
    rounds: int = Field(default=3, ge=1)
    store: bool = Field(default_factory=lambda: importlib.util.find_spec("aiohttp") is not None)
    ffcv: bool = Field(default_factory=lambda: importlib.util.find_spec("ffcv") is not None)


def run(config: Settings) -> None:
    """Measure and print."""
    print(f"images/s on {config.cores} cores, {config.longest_side_px} px stored", end=" ")
    print(f"-> {config.image_size_px} px, batches of {config.batch}")
    with tempfile.TemporaryDirectory() as folder:
        rates, held = measure(config, Path(folder))
    table = harness.Table({"stage": "<38", "images/s": ">9.0f"})
    for rate in rates.items():
        table.row(*rate)
    ratio = rates["pipeline"] / rates["torchvision pipeline"]
    name = f"pipeline / torchvision's (aim {AIM_RATIO})"
    targets = [harness.Target(name, ratio, TARGET_RATIO, at_least=True)]
    for name in UNAUGMENTED:
        of_decode = rates[name] / rates["decode on all cores"]
        name = f"{name} / decode on all cores"
        targets.append(harness.Target(name, of_decode, TARGET_OF_DECODE, at_least=True))
    for name, milliseconds in held.items():
        name = f"lock held, {name}, ms a sample"
        targets.append(harness.Target(name, milliseconds, TARGET_LOCK_HELD_MS))
    for end in ENDS if config.ffcv else ():
        of_ffcv = rates[f"from a beton, {end}"] / rates[f"FFCV's own, {end}"]
        name = f"from a beton / FFCV's own, {end}"
        targets.append(harness.Target(name, of_ffcv, TARGET_OF_FFCV, at_least=True))
    figures = {"images_per_second": rates, "ratio": ratio, "lock_held_ms": held}
    harness.conclude(targets, figures)


def measure(config: Settings, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Images a second by stage, and the milliseconds that the lock is held for a sample.

    Those that are compared take turns, and the best round counts.
    """
    distinct_images = config.images // 4
    write_synthetic_shards(
        folder / "shards",
        studies={"train": distinct_images},
        studies_a_shard=64,
        longest_side_px=config.longest_side_px,
    )
    data = DataConfig(
        shards=folder / "shards",
        image_size_px=config.image_size_px,
        global_batch=config.batch,
        decode_threads=config.cores,
    )
    split = ShardSplit(data.files(), "train", data.text_policy)
    build_tokenizer(folder / "tokenizer", split, partial(train_wordpiece, vocabulary_size=400))
    tokenizer = SentenceTokenizer.load(folder / "tokenizer")
    jpegs = [split.read_member(position, "image0.jpg") for position in range(len(split))]
    theirs = _torchvision_loader(config, jpegs)
    rate = partial(_rate, images=config.images, batch=config.batch)

    def pipeline(**changes: int) -> float:
        config = data.model_copy(update=changes)
        with closing(TrainingLoader(split, tokenizer, config, seed=0).batches()) as stream:
            return rate(stream)

    def unaugmented(of: ShardSplit = split, *, processes: int = 0) -> float:
        config = data.model_copy(update={"loader_processes": processes})
        with closing(TrainingLoader(of, tokenizer, config, seed=0).host_batches()) as stream:
            return rate(stream)

    def held(processes: int) -> float:
        alone = data.model_copy(update={"decode_threads": 1, "loader_processes": processes})
        loader = TrainingLoader(split, tokenizer, alone, seed=0)
        count = -(-config.images // config.batch)
        return lock_held_ms(
            loader.host_batches, count=count, batch=config.batch, warmup=WARMUP_BATCHES
        )

    webdataset = plain_webdataset(folder / "shards", workers=config.cores)
    pipelines: dict[str, Callable[[], float]] = {
        "decode on all cores": lambda: _decode_rate(jpegs, config),
        UNAUGMENTED[0]: unaugmented,
        UNAUGMENTED[1]: partial(unaugmented, processes=config.cores),
        "plain webdataset": lambda: rate(iter(webdataset), batch=1),
        "pipeline": pipeline,
        "pipeline, a process of its own": lambda: pipeline(loader_processes=1),
        "torchvision pipeline": lambda: rate(iter(theirs), images=distinct_images),
    }
    if config.store:
        with served(folder / "shards") as address:
            files = shard_files(address, CacheConfig(folder=folder / "cache"))
            stored = ShardSplit(files, "train", data.text_policy)
            for entry in stored.entries:
                files.path(entry.tar_name)
        pipelines["the same from a store, all cached"] = lambda: unaugmented(stored)
    if config.ffcv:
        pipelines |= _beside_ffcv(config, data, tokenizer)
    rounds = harness.take_turns(pipelines, turns=config.rounds, warmup=0)
    locks = {"in threads": partial(held, 0), "in a process of its own": partial(held, 1)}
    held_ms = harness.take_turns(locks, turns=config.rounds, warmup=0)
    with closing(TrainingLoader(split, tokenizer, data, seed=0).host_batches()) as stream:
        host = next(stream)
    augment = DeviceTransform(
        data.augmentation, image_size_px=data.image_size_px, pixel_mean=0.5, pixel_std=0.22
    )
    rates = {
        "augmentation": rate(augment(each, torch.device("cpu")) for each in repeat(host)),
        **{name: max(each) for name, each in rounds.items()},
    }
    return rates, {name: min(each) for name, each in held_ms.items()}


def _beside_ffcv(
    config: Settings, data: DataConfig, tokenizer: SentenceTokenizer
) -> dict[str, Callable[[], float]]:
    """Ours from tars and from a beton, and FFCV's own loader."""
    from data_shards.beton.layout import beton_name
    from data_shards.beton.write import write_betons
    from distributed_pretrain.benchmark.ffcv_loader import FfcvLoader

    assert isinstance(data.shards, Path)
    write_betons(data.shards)
    needed = config.images + (WARMUP_BATCHES + 1) * config.batch
    measures: dict[str, Callable[[], float]] = {}

    def rate(batches: Callable[[], Generator[object]]) -> float:
        with closing(batches()) as stream:
            return _rate(stream, images=config.images, batch=config.batch)

    for end, normalised in ENDS.items():
        for name, reader in {"from tars": "tar", "from a beton": "ffcv"}.items():
            changes = {"augmentation": AugmentationConfig(enabled=False), "reader": reader}
            still = data.model_copy(update=changes)
            split = ShardSplit(still.files(), "train", still.text_policy)
            loader = TrainingLoader(split, tokenizer, still, seed=0)
            ours = loader.batches if normalised else loader.host_batches
            measures[f"{name}, {end}"] = partial(rate, ours)
        theirs = FfcvLoader(
            data.shards / beton_name("train"),
            rows=len(split),
            images=needed,
            batch=config.batch,
            image_size_px=config.image_size_px,
            cores=config.cores,
            normalised=normalised,
        )
        rate(theirs.batches)  # compiles
        measures[f"FFCV's own, {end}"] = partial(rate, theirs.batches)
    return measures


def _rate(stream: Iterator[object], *, images: int, batch: int) -> float:
    """Images a second after a warm-up (threads, workers, blocks and caches are ready)."""
    batches = -(-images // batch)
    exhaust = partial(deque[object], maxlen=0)
    exhaust(islice(stream, WARMUP_BATCHES))
    return batches * batch / harness.seconds_of(lambda: exhaust(islice(stream, batches)))


def _decode_rate(jpegs: Sequence[bytes], config: Settings) -> float:
    """Of JPEGs in memory, by a thread a core, which share nothing else."""
    images = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]

    def decode(first: int) -> None:
        for number in range(first, config.images, config.cores):
            decode_image(images[number % len(images)], ImageReadMode.GRAY)

    with ThreadPoolExecutor(config.cores) as pool:
        every = range(config.cores)
        return config.images / harness.seconds_of(lambda: list(pool.map(decode, every)))


def _torchvision_loader(config: Settings, jpegs: list[bytes]) -> DataLoader[bytes]:
    ours, side_px = AugmentationConfig(), config.image_size_px
    # Of the usual forms (PIL, uint8 tensors, float tensors) this is the quickest.
    augment = v2.Compose(
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
    needed = WARMUP_BATCHES * config.batch + len(jpegs) + config.batch
    return DataLoader(
        cast(Dataset[bytes], (jpegs * (needed // len(jpegs) + 1))[:needed]),
        config.batch,
        num_workers=config.cores,
        collate_fn=partial(_augmented, augment),
    )


def _augmented(augment: v2.Compose, jpegs: Sequence[bytes]) -> Tensor:
    return torch.stack([augment(Image.open(io.BytesIO(jpeg))) for jpeg in jpegs])
