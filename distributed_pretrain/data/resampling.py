"""Batched image operations with one set of parameters a sample, on any device, in float32.

Each gives what torchvision gives for one image, but as matrix products, which CPUs and GPUs
alike do at full speed. Pixel centres lie at half-integers (align_corners=False).
"""

# B batch, S side of the square output, H height, W width, all in pixels.

from __future__ import annotations

import functools
import math
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Resizing and blurring matrices are zero away from their diagonal, so they are applied in strips of
# output pixels, each from the input near it. 56 px is the quickest of those tried at 224 px (28 to
# 224), where it saves more than half the time of whole products.
_STRIP_PX = 56


def resize_windows(
    canvas: Float[Tensor, "batch height width"],
    window_sizes_px: Int[Tensor, "batch 2"],
    *,
    side_px: int,
    host_sizes_px: Int[Tensor, "batch 2"] | None = None,
) -> Float[Tensor, "batch {side_px} {side_px}"]:
    """The upper left window (height, width) of each canvas, resized to a square with antialiasing.

    Bilinear: weights fall off linearly over one output pixel when shrinking and one stored pixel
    when enlarging, and are renormalised at the borders. What lies outside a window has no
    influence. Nobody waits for a device where `host_sizes_px` are the sizes on the host: they
    decide the shapes of the work.
    """
    batch, _, width = canvas.shape
    on_host = window_sizes_px if host_sizes_px is None else host_sizes_px
    flat = canvas.new_empty(batch, side_px, width)
    down, across = (
        partial(_resize_strip, on_host[:, axis], window_sizes_px[:, axis], side_px=side_px)
        for axis in (0, 1)
    )
    for strip in _strips(side_px):
        near, weights_BSH = down(strip)
        torch.bmm(weights_BSH, canvas[:, near], out=flat[:, strip])
    resized = canvas.new_empty(batch, side_px, side_px)
    for strip in _strips(side_px):
        near, weights_BSW = across(strip)
        torch.bmm(flat[:, :, near], weights_BSW.mT, out=resized[:, :, strip])
    return resized


def _resize_strip(
    on_host_px: Int[Tensor, " batch"],
    window_px: Int[Tensor, " batch"],
    strip: slice,
    *,
    side_px: int,
) -> tuple[slice, Float[Tensor, "batch strip near"]]:
    """The stored pixels that any image needs for a strip of output pixels, and their weights."""
    scales = on_host_px.to(torch.float32) / side_px
    smallest, largest = float(scales.min()), float(scales.max())
    first = math.floor((strip.start + 0.5) * smallest - max(smallest, 1))
    last = math.ceil((strip.stop - 0.5) * largest + max(largest, 1))
    near = slice(max(0, first), min(int(on_host_px.max()), last))

    device = window_px.device
    scale = (window_px.to(torch.float32) / side_px)[:, None]
    output = torch.arange(strip.start, strip.stop, device=device) + 0.5
    stored = torch.arange(near.start, near.stop, device=device) + 0.5
    weights = (stored - (output * scale)[:, :, None]).abs_()
    weights.div_(-scale.clamp(min=1)[:, :, None]).add_(1).clamp_(min=0)
    if near.stop > int(on_host_px.min()):
        weights.mul_((stored < window_px[:, None])[:, None, :])
    return near, weights.div_(weights.sum(dim=2, keepdim=True))


def _strips(side_px: int) -> list[slice]:
    return [slice(i, min(i + _STRIP_PX, side_px)) for i in range(0, side_px, _STRIP_PX)]


def affine_warp(
    images: Float[Tensor, "batch side side"],
    *,
    mirrored: Bool[Tensor, " batch"],
    rotation_degrees: Float[Tensor, " batch"],
    translation_fraction: Float[Tensor, "batch xy=2"],
    scale: Float[Tensor, " batch"],
) -> Float[Tensor, "batch side side"]:
    """Images mirrored left to right where asked, turned clockwise and enlarged about their centre,
    then moved right and down by `translation_fraction` of their side. Bilinear, zero outside.
    """
    batch, side, _ = images.shape
    # The sampling grid needs the inverse: p_in = R^T (p_out - t) / scale, in units of half a side,
    # then mirrored.
    angle = rotation_degrees * (math.pi / 180)
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    inverse = torch.stack([cosine, sine, -sine, cosine], dim=1).view(batch, 2, 2)
    inverse[:, 0] *= torch.where(mirrored, -1, 1)[:, None]
    shift = inverse @ (-2 * translation_fraction[:, :, None])
    line = (torch.arange(side, device=images.device, dtype=torch.float32) * 2 + 1) / side - 1
    # Two planes (x, y), permuted: several times quicker to write than the (x, y) pairs of
    # F.affine_grid.
    grid = images.new_empty(batch, 2, side, side)
    down_column = inverse[:, :, 1:] * line + shift
    along_row = inverse[:, :, :1] * line
    torch.add(down_column[:, :, :, None], along_row[:, :, None, :], out=grid)
    warped = F.grid_sample(
        images[:, None],
        grid.permute(0, 2, 3, 1),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return warped[:, 0]


def adjust_brightness(
    images: Float[Tensor, "batch side side"], factor: Float[Tensor, " batch"]
) -> Float[Tensor, "batch side side"]:
    """Images in [0, 1] times `factor`, clamped to [0, 1]."""
    return (images * factor[:, None, None]).clamp_(0, 1)


def adjust_contrast(
    images: Float[Tensor, "batch side side"], factor: Float[Tensor, " batch"]
) -> Float[Tensor, "batch side side"]:
    """Images in [0, 1], their distance to their mean grey times `factor`, clamped to [0, 1]."""
    mean = images.mean(dim=(1, 2), keepdim=True)
    factor = factor[:, None, None]
    return (images * factor).add_(mean * (1 - factor)).clamp_(0, 1)


def gaussian_blur(
    images: Float[Tensor, "batch side side"], sigma_px: Float[Tensor, " batch"], *, kernel_px: int
) -> Float[Tensor, "batch side side"]:
    """Images blurred by a Gaussian of `sigma_px` (> 0) cut to `kernel_px`, reflecting at edges."""
    batch, side, _ = images.shape
    reach = kernel_px // 2
    assert reach < side, "reflection needs an image larger than half the kernel"
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float32)
    kernels = torch.softmax(-0.5 * (offsets / sigma_px[:, None]) ** 2, dim=1)
    # Denormal numbers in the tails of narrow kernels make the products below ten times slower.
    kernels[kernels < 1e-12] = 0
    shifts = _reflecting_shifts(side, kernel_px, images.device)
    blur_BSS = (kernels @ shifts.view(kernel_px, -1)).view(batch, side, side)

    vertical, blurred = torch.empty_like(images), torch.empty_like(images)
    strips = [(s, slice(max(0, s.start - reach), min(side, s.stop + reach))) for s in _strips(side)]
    for strip, near in strips:
        torch.bmm(blur_BSS[:, strip, near], images[:, near], out=vertical[:, strip])
    for strip, near in strips:
        across = blur_BSS[:, strip, near].mT
        torch.bmm(vertical[:, :, near], across, out=blurred[:, :, strip])
    return blurred


@functools.lru_cache(maxsize=8)
def _reflecting_shifts(
    side_px: int, kernel_px: int, device: torch.device
) -> Float[Tensor, "kernel side side"]:
    """Matrix k takes pixel i from i + k - kernel // 2, mirrored at the borders."""
    rows = torch.arange(side_px)
    shifts = torch.zeros(kernel_px, side_px, side_px)
    for k in range(kernel_px):
        source = (rows + k - kernel_px // 2).abs()
        source = torch.minimum(source, 2 * (side_px - 1) - source)
        shifts[k, rows, source] = 1
    return shifts.to(device)
