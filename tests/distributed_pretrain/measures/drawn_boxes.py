"""Random boxes and detections of some images."""

from __future__ import annotations

import torch

from distributed_pretrain.methods.boxes import Detections, Truths

SIDE = 64.0


def random_detections(
    seed: int, *, images: int = 12, classes: int = 2
) -> tuple[list[Detections], list[Truths]]:
    """Some near a box, some not; images without either, and without both."""
    generator = torch.Generator().manual_seed(seed)

    def corners(count: int) -> torch.Tensor:
        start = torch.rand(count, 2, generator=generator) * 0.7 * SIDE
        return torch.cat([start, start + 4 + torch.rand(count, 2, generator=generator) * 20], dim=1)

    def numbers(count: int, most: int) -> torch.Tensor:
        return torch.randint(0, most, (count,), generator=generator)

    detections, truths = [], []
    for image in range(images):
        count = 0 if image % 4 == 1 else int(numbers(1, 4)) + 1
        truth = Truths(corners(count), numbers(count, classes))
        near = truth.corners + 3 * torch.randn(count, 4, generator=generator)
        near[:, 2:] = near[:, 2:].maximum(near[:, :2] + 1)
        extra = 0 if image % 5 == 1 else int(numbers(1, 4))
        found = torch.cat([near, near + 1, corners(extra)])
        category = torch.cat([truth.category, truth.category, numbers(extra, classes)])
        confidence = torch.rand(len(found), generator=generator)
        detections.append(Detections(found, category, confidence))
        truths.append(truth)
    return detections, truths
