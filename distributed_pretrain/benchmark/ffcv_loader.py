"""FFCV's own loader on a beton, as its users write it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_shards.beton.file import CUSTOM_FIELDS

# Below ours, which keeps the number of torch's threads.
# isort: split
from ffcv.fields.bytes import BytesDecoder
from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, ToTensor, ToTorchImage


class FfcvLoader:
    """Images in three channels, cut to their middle and resized, and their records as bytes.

    They are bytes for a device, or `normalised` floats. An epoch has `images` of the beton's
    `rows`, these again and again, in random order. What it runs is compiled once, by the first
    epoch.
    """

    def __init__(
        self,
        beton: Path,
        *,
        rows: int,
        images: int,
        batch: int,
        image_size_px: int,
        cores: int,
        normalised: bool,
    ) -> None:
        self._threads = torch.get_num_threads()
        grey = np.full(3, 255 / 2)
        image = [CenterCropRGBImageDecoder((image_size_px, image_size_px), ratio=1)]
        image += [NormalizeImage(grey, grey, np.float32)] if normalised else []
        self._loader = Loader(
            str(beton),
            batch,
            custom_fields=CUSTOM_FIELDS,
            num_workers=cores,
            order=OrderOption.RANDOM,
            seed=0,
            indices=np.resize(np.arange(rows), images),
            pipelines={
                "image": [*image, ToTensor(), ToTorchImage()],
                "record": [BytesDecoder()],
                "others": None,
            },
        )

    def batches(self) -> Generator[tuple[Tensor, ...]]:
        """An epoch. Meanwhile torch has as many threads as FFCV gives it."""
        try:
            with closing(iter(self._loader)) as epoch:
                yield from epoch
        finally:
            torch.set_num_threads(self._threads)
