"""From decoded pixels to the model's input: LoVT's augmentation, batched on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distributed_pretrain.batch import Batch
from distributed_pretrain.data.resampling import (
    adjust_brightness,
    adjust_contrast,
    affine_warp,
    gaussian_blur,
    resize_windows,
)
from distributed_pretrain.data.sample import HostBatch, HostImages
from distributed_pretrain.data.settings import AugmentationConfig

# On a CPU the intermediate images of this many samples stay in a core's second-level cache.
_CPU_CHUNK_IMAGES = 8


@dataclass(frozen=True)
class DeviceTransform:
    """Turns a HostBatch into a Batch: resize, augment where that was drawn, normalise.

    Augmented in LoVT's order: crop and flip, affine, brightness, contrast, blur. The parameters
    come from the host, so that a CPU and a GPU see the same images up to rounding. Always float32,
    also under autocast, and without gradients. On a CPU the result is bit-identical for any
    number of threads.
    """

    config: AugmentationConfig
    image_size_px: int
    pixel_mean: float
    pixel_std: float

    def __call__(self, host: HostBatch, device: torch.device) -> Batch:
        """The batch on `device`, normalised; images without a drawn augmentation only resized."""
        batch, side = host.batch.to(device), self.image_size_px
        lateral, second_view = batch.lateral, batch.second_view
        if host.batch.lateral is not None and lateral is not None:
            laterals = torch.zeros(len(lateral.mask), 1, side, side, device=device)
            if host.lateral is not None:
                # The numbers of rows come from the host: a mask on the device would wait for it.
                rows = host.batch.lateral.mask.nonzero()[:, 0].to(device, non_blocking=True)
                laterals[rows] = self._images(host.lateral, device)
            lateral = replace(lateral, images=laterals)
        if second_view is not None and host.second_view is not None:
            second_view = replace(second_view, images=self._images(host.second_view, device))
        images = self._images(host.frontal, device)
        return replace(batch, images=images, lateral=lateral, second_view=second_view)

    def _images(self, host: HostImages, device: torch.device) -> Float[Tensor, "batch 1 side side"]:
        batch, side = len(host.pixels), self.image_size_px
        images = torch.empty(batch, 1, side, side, device=device)

        def transform(rows: slice) -> None:
            some = host.rows(rows)
            sizes_px = some.window_sizes_px  # which stay on the host
            some = some.to(device)
            # Both are settings of a thread. Autocast would use bfloat16 in the products.
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                scaled = some.pixels[:, 0].to(torch.float32).div_(255)
                augmented = self._augment(scaled, sizes_px, some.augmentation)
                images[rows, 0] = augmented.sub_(self.pixel_mean).div_(self.pixel_std)

        if device.type == "cpu":
            starts = range(0, batch, _CPU_CHUNK_IMAGES)
            _each_on_one_thread(transform, [slice(i, i + _CPU_CHUNK_IMAGES) for i in starts])
        else:
            transform(slice(0, batch))
        return images

    def _augment(
        self,
        canvas: Float[Tensor, "batch height width"],
        window_sizes_px: Int[Tensor, "batch 2"],
        drawn: dict[str, Tensor] | None,
    ) -> Float[Tensor, "batch side side"]:
        images = resize_windows(canvas, window_sizes_px, side_px=self.image_size_px)
        if drawn is None:
            return images
        if self.config.affine or self.config.horizontal_flip:
            images = affine_warp(
                images,
                mirrored=drawn["flip"],
                rotation_degrees=drawn["rotation_degrees"],
                translation_fraction=drawn["translation_fraction"],
                scale=drawn["scale"],
            )
        if self.config.brightness_contrast:
            images = adjust_brightness(images, drawn["brightness"])
            images = adjust_contrast(images, drawn["contrast"])
        if self.config.gaussian_blur:
            kernel_px = self.config.blur_kernel_px
            images = gaussian_blur(images, drawn["blur_sigma_px"], kernel_px=kernel_px)
        return images


def _each_on_one_thread(work: Callable[[slice], None], parts: Sequence[slice]) -> None:
    """Run `work` on every part, as many at a time as torch has threads, each on one of them.

    Torch's own way, all threads on every operation, waits for the slowest thread after each: with
    decoding threads on the same cores that costs several times the work itself. It also makes
    rounding depend on the number of threads.
    """
    threads = torch.get_num_threads()
    # New threads take over this setting when they first use torch; the caller only waits.
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, thread_name_prefix="augment") as pool:
            list(pool.map(work, parts))
    finally:
        torch.set_num_threads(threads)
