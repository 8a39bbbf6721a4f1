"""What a method looks at in the first studies of a split: pictures, and no numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distributed_pretrain.measures.base import OfFirstBatch, Picture
from distributed_pretrain.measures.pictures import (
    displayed,
    region_weights_picture,
    sentence_maps_picture,
)

WEIGHTED_STUDIES = 8


class RegionMaps(OfFirstBatch):
    """Region weights of the first studies, and where each sentence of the first belongs."""

    picture_notes: ClassVar[Mapping[str, str]] = {
        "region_weights": "What counts of an image as a whole, on one scale for all images.",
        "sentence_maps": "Where each sentence of the first report belongs, by the method's own "
        "comparison: each map on its own scale, whose ends are printed.",
    }

    def pictures(self) -> dict[str, Picture]:
        """`region_weights` where a method has them, and `sentence_maps`."""
        if self.first is None:
            return {}
        batch, outputs = self.first
        pixels, found = displayed(batch.images[:WEIGHTED_STUDIES]), {}
        weights = outputs.images.region_weights
        if weights is not None:
            shown = _array(weights[:WEIGHTED_STUDIES])
            found["region_weights"] = region_weights_picture(pixels, shown)
        sentences = self.context.sentences(batch.records[0])
        if self.context.encode is not None and sentences:
            tokens = self.context.encode([[each] for each in sentences]).to(self.context.device)
            image = self.method.embed_images(batch.rows(slice(0, 1)))
            # One row for each sentence.
            image = image.map_tensors(lambda rows: rows.expand(len(sentences), *rows.shape[1:]))
            maps = self.method.grounding_map(self.method.embed_reports(tokens), image)
            found["sentence_maps"] = sentence_maps_picture(pixels[0], sentences, _array(maps))
        return found


def _array(values: Tensor) -> NDArray[np.float32]:
    return values.detach().float().cpu().numpy()
