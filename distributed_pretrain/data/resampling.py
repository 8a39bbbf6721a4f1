"""Batched image operations with one set of parameters a sample, on any device, in float32.

Each gives what torchvision gives for one image, but as matrix products, which CPUs and GPUs
alike do at full speed. Pixel centres lie at half-integers (align_corners=False).
"""

# B batch, S side of the square output, H height, W width, all in pixels.

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

# A strip of the image needs the blur matrix only near its diagonal: 56 px is the quickest of the
# strips tried at 224 px (28 to 224), where it halves the time of the whole product.
_BLUR_STRIP_PX = 56


def resize_windows(
    canvas: Float[Tensor, "batch height width"],
    window_sizes_px: Int[Tensor, "batch 2"],
    flip: Bool[Tensor, " batch"],
    *,
    side_px: int,
) -> Float[Tensor, "batch {side_px} {side_px}"]:
    """The upper left window of each canvas, resized bilinearly with antialiasing and mirrored.

    What lies outside a window has no influence. `flip` mirrors left and right.
    """
    height, width = canvas.shape[1:]
    upright = torch.zeros_like(flip)
    rows_BSH = _resize_matrix(window_sizes_px[:, 0], upright, height, side_px)
    columns_BSW = _resize_matrix(window_sizes_px[:, 1], flip, width, side_px)
    return rows_BSH @ (canvas @ columns_BSW.mT)


def _resize_matrix(
    window_px: Int[Tensor, " batch"], mirrored: Bool[Tensor, " batch"], canvas_px: int, side_px: int
) -> Float[Tensor, "batch side canvas"]:
    """Row i holds the weights of the stored pixels in output pixel i: a tent as wide as needed.

    The tent's half width is one output pixel when shrinking and one stored pixel when enlarging;
    weights are renormalised at the borders, which repeats the edge.
    """
    window = window_px.to(torch.float32)[:, None]
    scale = window / side_px
    output = torch.arange(side_px, device=window.device, dtype=torch.float32)
    centres = torch.where(mirrored[:, None], side_px - 0.5 - output, output + 0.5) * scale
    stored = torch.arange(canvas_px, device=window.device, dtype=torch.float32) + 0.5
    weights = (stored - centres[:, :, None]).abs_()
    weights.div_(-scale.clamp(min=1)[:, :, None]).add_(1).clamp_(min=0)
    weights.mul_((stored < window)[:, None, :])
    return weights.div_(weights.sum(dim=2, keepdim=True))


def affine_warp(
    images: Float[Tensor, "batch side side"],
    *,
    rotation_degrees: Float[Tensor, " batch"],
    translation_fraction: Float[Tensor, "batch xy=2"],
    scale: Float[Tensor, " batch"],
) -> Float[Tensor, "batch side side"]:
    """Images turned clockwise and enlarged about their centre, then moved right and down.

    Bilinear, zero outside. `translation_fraction` counts in image sides.
    """
    batch, side, _ = images.shape
    # The sampling grid needs the inverse: p_in = R^T (p_out - t) / scale, in units of half a side.
    angle = rotation_degrees * (math.pi / 180)
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    inverse = torch.stack([cosine, sine, -sine, cosine], dim=1).view(batch, 2, 2)
    shift = inverse @ (-2 * translation_fraction[:, :, None])
    line = (torch.arange(side, device=images.device, dtype=torch.float32) * 2 + 1) / side - 1
    # Two planes (x, y), permuted: several times quicker to write than the (x, y) pairs of
    # F.affine_grid.
    grid = torch.empty(batch, 2, side, side, device=images.device)
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
    return torch.lerp(mean, images, factor[:, None, None]).clamp_(0, 1)


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
    strips = [slice(i, min(i + _BLUR_STRIP_PX, side)) for i in range(0, side, _BLUR_STRIP_PX)]
    for strip in strips:
        near = slice(max(0, strip.start - reach), min(side, strip.stop + reach))
        torch.bmm(blur_BSS[:, strip, near], images[:, near], out=vertical[:, strip])
    for strip in strips:
        near = slice(max(0, strip.start - reach), min(side, strip.stop + reach))
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
