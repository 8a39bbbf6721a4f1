"""From decoded pixels to the model's input: LoVT's augmentation, batched on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from distributed_pretrain.batch import Batch
from distributed_pretrain.data.host_batch import HostBatch, HostImages
from distributed_pretrain.data.resampling import (
    adjust_brightness,
    adjust_contrast,
    affine_warp,
    gaussian_blur,
    resize_windows,
)
from distributed_pretrain.data.settings import AugmentationConfig

# On a CPU the intermediate images of this many samples stay in a core's second-level cache.
_CPU_CHUNK_IMAGES = 8
# On a GPU those of many would take gigabytes: 4,096 at 224 px eight of them.
_GPU_CHUNK_IMAGES = 512


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
        there, side = host.to(device), self.image_size_px
        batch = there.batch
        lateral, second_view = batch.lateral, batch.second_view
        if lateral is not None:
            laterals = torch.zeros(len(lateral.mask), 1, side, side, device=device)
            if host.lateral is not None and there.lateral is not None:
                laterals[there.lateral_rows] = self._images(host.lateral, there.lateral)
            lateral = replace(lateral, images=laterals)
        if second_view is not None and host.second_view and there.second_view:
            images = self._images(host.second_view, there.second_view)
            second_view = replace(second_view, images=images)
        images = self._images(host.frontal, there.frontal)
        return replace(batch, images=images, lateral=lateral, second_view=second_view)

    def _images(self, host: HostImages, there: HostImages) -> Float[Tensor, "batch 1 side side"]:
        """The images of `there`, whose windows' sizes are known on the host too."""
        batch, side, device = len(host.pixels), self.image_size_px, there.pixels.device
        images = torch.empty(batch, 1, side, side, device=device)

        def transform(rows: slice) -> None:
            some = there.rows(rows)
            # Both are settings of a thread. Autocast would use bfloat16 in the products.
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                scaled = some.pixels[:, 0].to(torch.float32).div_(255)
                resized = resize_windows(
                    scaled,
                    some.window_sizes_px,
                    host_sizes_px=host.window_sizes_px[rows],
                    side_px=side,
                )
                augmented = self._augment(resized, some.augmentation)
                images[rows, 0] = augmented.sub_(self.pixel_mean).div_(self.pixel_std)

        if device.type == "cpu":
            starts = range(0, batch, _CPU_CHUNK_IMAGES)
            _each_on_one_thread(transform, [slice(i, i + _CPU_CHUNK_IMAGES) for i in starts])
        else:
            for start in range(0, batch, _GPU_CHUNK_IMAGES):
                transform(slice(start, start + _GPU_CHUNK_IMAGES))
        return images

    def _augment(
        self, images: Float[Tensor, "batch side side"], drawn: dict[str, Tensor] | None
    ) -> Float[Tensor, "batch side side"]:
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
