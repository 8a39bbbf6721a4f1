"""Images of one's own as a run's method sees those of its shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.nn.functional import normalize

from data_shards.errors import InputError
from data_shards.own_inputs import OwnImage, image_of_array, read_image
from distributed_pretrain.batch import Batch, Lateral
from distributed_pretrain.data.augmentation import DeviceTransform
from distributed_pretrain.data.augmentation_parameters import square_window, stored_to_model_scale
from distributed_pretrain.data.host_batch import HostBatch, HostImages
from distributed_pretrain.data.sample import LoadedView
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.tokenization import NoReports
from distributed_pretrain.methods.image_text import ImageTextMethod
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.run_folder.intact import StoredImages

# A file (JPEG, PNG, TIFF, BMP, DICOM), an image of Pillow, or one channel of numbers.
ImageInput: TypeAlias = str | Path | Image.Image | NDArray[Any] | Tensor


@dataclass(frozen=True)
class ImageReader:
    """Reads images as an evaluation does: grey, shrunk, their padded square resized, normalised."""

    data: DataConfig
    stored: StoredImages

    def read(self, image: ImageInput) -> OwnImage:
        """One image. Raises InputError for what is no radiograph."""
        longest = self.stored.longest_side_px
        if isinstance(image, str | Path):
            return read_image(Path(image), longest_side_px=longest)
        if isinstance(image, Image.Image):
            deep = image.mode.startswith(("F", "I"))
            image = np.asarray(image if deep else image.convert("L"))
        if isinstance(image, Tensor):
            image = image.detach().cpu()
            # NumPy has no bfloat16.
            image = (image.float() if image.dtype == torch.bfloat16 else image).numpy()
        if not isinstance(image, np.ndarray):
            raise InputError(
                f"an image of type {type(image).__name__}: give a path, a PIL image, or an array "
                "or tensor (height, width)"
            )
        return image_of_array(image, longest_side_px=longest)

    def batch(self, images: Sequence[OwnImage], device: torch.device) -> Batch:
        """Images without reports, on `device`; where the method reads laterals there are none."""
        batch = without_reports(torch.empty(len(images), 1, 0, 0), self.data, known=len(images))
        views = [self._view(each.pixels) for each in images]
        return self.transform(HostBatch(batch, frontal=HostImages.stack(views)), device)

    @property
    def transform(self) -> DeviceTransform:
        """What is made of pixels."""
        of_shards = (self.stored.pixel_mean, self.stored.pixel_std)
        mean, std = self.data.mean_and_std(of_shards)
        return DeviceTransform(
            self.data.augmentation,
            image_size_px=self.data.image_size_px,
            pixel_mean=mean,
            pixel_std=std,
        )

    def on_image(
        self, heat: Float[Tensor, "phrases size size"], *, height: int, width: int
    ) -> Float[Tensor, "phrases {height} {width}"]:
        """What lies on the model's pixels, on those of an image: bilinear, NaN where it sees none.

        That is beyond the crop that an evaluation takes.
        """
        size = heat.shape[-1]
        scale, left, top = stored_to_model_scale(
            width, height, size, crop_fraction=self.data.augmentation.evaluation_crop_fraction
        )
        across = (torch.arange(width) + 0.5) * scale + left
        down = (torch.arange(height) + 0.5) * scale + top
        grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1) / size * 2 - 1
        seen = (grid.abs() <= 1).all(dim=-1)
        on_pixels = F.grid_sample(
            heat[None].to(torch.float32),
            grid[None],
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )[0]
        return on_pixels.masked_fill(~seen, torch.nan)

    def _view(self, pixels: NDArray[np.uint8]) -> LoadedView:
        height, width = pixels.shape
        fraction = self.data.augmentation.evaluation_crop_fraction
        return LoadedView.cut(pixels, square_window(width, height, fraction=fraction), None)


def without_reports(
    pixels: Float[Tensor, "images 1 height width"], data: DataConfig, *, known: int
) -> Batch:
    """A batch of real images, each without report, and without lateral where those are read.

    `known` is their number on the host, or 1 in a graph for any number of them: there, what is
    computed must not hang on the values of a mask.
    """
    # Not len(): that would be one number in a graph.
    real = torch.ones(pixels.shape[0], dtype=torch.bool, device=pixels.device)
    lateral = Lateral(torch.zeros_like(pixels), ~real, (False,) * known)
    return Batch(
        keys=tuple(map(str, range(known))),
        images=pixels,
        report=NoReports().encode([()] * known),
        sample_mask=real,
        lateral=lateral if data.views == "frontal_lateral" else None,
        real=(True,) * known,
    )


def image_vectors(method: Method, batch: Batch) -> Float[Tensor, "images d"]:
    """Unit vectors: those that meet reports, or of a method without reports mean features."""
    if isinstance(method, ImageTextMethod):
        return normalize(method.embed_images(batch).image, dim=1)
    return normalize(method.feature_map(batch.images).mean(dim=(2, 3)), dim=1)


def images_of(images: ImageInput | Sequence[ImageInput]) -> Sequence[ImageInput]:
    """One or many, as many. Raises InputError for none."""
    if not isinstance(images, Sequence) or isinstance(images, str):
        return [images]
    if not images:
        raise InputError("no image was given")
    return images
