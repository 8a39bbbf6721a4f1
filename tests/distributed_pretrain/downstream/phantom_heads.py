"""Heads on small encoders, and batches with all that they predict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from data_shards.profiles import validate
from distributed_pretrain.batch import Batch, Boxes
from distributed_pretrain.downstream.protocols.base import HeadSizes, ProtocolConfig
from distributed_pretrain.methods.objective import Method, Objective
from tests.tiny.batches import random_batch
from tests.tiny.methods import tiny_method, tiny_profile
from tests.tiny.sizes import IMAGE_SIZE_PX

CLASSES = 5


def drawn_batch(rows: int, *, classes: int = CLASSES, seed: int = 1) -> Batch:
    """Random images with labels, a bright block of each class that is marked, and its box."""
    generator = torch.Generator().manual_seed(seed)
    batch = random_batch(tiny_profile("phantom_chexpert"), rows, seed=seed)
    size = IMAGE_SIZE_PX
    masks = torch.zeros(rows, classes, size, size, dtype=torch.bool)
    corners = torch.zeros(rows, 2, 4)
    category = torch.randint(0, classes, (rows, 2), generator=generator)
    present = torch.rand(rows, 2, generator=generator) < 0.7
    images = batch.images.clone()
    for row in range(rows):
        for number in range(2):
            left, top = torch.randint(0, 30, (2,), generator=generator).tolist()
            width, height = torch.randint(10, 33, (2,), generator=generator).tolist()
            corners[row, number] = torch.tensor([left, top, left + width, top + height])
            if present[row, number]:
                place = (slice(top, top + height), slice(left, left + width))
                masks[row, category[row, number]][place] = True
                images[row, 0][place] += 3
    labels = masks.flatten(2).any(dim=2).float()
    return replace(
        batch,
        images=images,
        labels=labels,
        masks=masks,
        boxes=Boxes(corners, category, present),
    )


def tiny_encoder() -> Method:
    """That of a small profile, the same each time."""
    return tiny_method(tiny_profile("phantom_chexpert"))


def built(protocol: ProtocolConfig, *, classes: int = CLASSES, seed: int = 0) -> Objective:
    """The protocol's head on the small encoder."""
    encoder = tiny_encoder()
    torch.manual_seed(seed)
    return protocol.build(encoder, HeadSizes(classes, IMAGE_SIZE_PX))


def protocol_of(kind: type[ProtocolConfig], **values: Any) -> ProtocolConfig:
    """The settings of a kind."""
    return validate(kind, values, where="test")
