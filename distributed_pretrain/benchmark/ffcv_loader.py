"""FFCV's own loader on a beton, as its users write it: the one file that uses it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_shards.beton.file import CUSTOM_FIELDS

from ffcv.fields.bytes import BytesDecoder  # isort: skip
from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, ToTensor, ToTorchImage


def ffcv_batches(
    beton: Path, *, batch: int, image_size_px: int, cores: int
) -> Iterator[tuple[Tensor, ...]]:
    """Normalised float images, each cut to its middle and resized, and the bytes of its record.

    Epoch after epoch, in random order. Its threads decode, resize and normalise; they are not
    torch's, which it would set too.
    """
    threads = torch.get_num_threads()
    grey = np.full(3, 255 / 2)
    image = [
        CenterCropRGBImageDecoder((image_size_px, image_size_px), ratio=1),
        NormalizeImage(grey, grey, np.float32),
        ToTensor(),
        ToTorchImage(),
    ]
    loader = Loader(
        str(beton),
        batch_size=batch,
        num_workers=cores,
        order=OrderOption.RANDOM,
        seed=0,
        pipelines={"image": image, "record": [BytesDecoder()], "others": None},
        custom_fields=CUSTOM_FIELDS,
    )
    try:
        for _ in repeat(None):
            yield from loader
    finally:
        torch.set_num_threads(threads)
