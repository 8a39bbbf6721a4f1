"""What learns to predict boxes: YOLOv3 on an encoder, its loss, and what it detects."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.ops import batched_nms

from distributed_pretrain.batch import Batch
from distributed_pretrain.downstream.heads.on_encoder import OnEncoder, WarmUp
from distributed_pretrain.downstream.heads.yolov3 import YoloV3
from distributed_pretrain.losses.anchor_boxes import AnchorRules, anchor_targets, anchor_terms
from distributed_pretrain.methods.boxes import BoxOutputs, Detections
from distributed_pretrain.methods.objective import Contrasted
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.ranks import mean_over_samples

# Sides (width, height) of each scale's anchors, coarsest first, for images of 224 px: COCO's by
# YOLOv3 times 0.54.
ANCHORS_PX = (
    ((62.64, 48.6), (84.24, 106.92), (201.42, 176.04)),
    ((16.2, 32.94), (33.48, 24.3), (31.86, 64.26)),
    ((5.4, 7.02), (8.64, 16.2), (17.82, 12.42)),
)
ANCHORS_FOR_PX = 224
# The authors have it so, where 0.54 times COCO's 116 is 62.64.
AUTHORS_FIRST_WIDTH_PX = 64.64
# Before the exponential: e^8 anchors are wider than any image.
_MOST_LOG_SIZE = 8.0


@dataclass(frozen=True)
class DetectorOptions:
    """`min_confidence` and `nms_iou` are those of what is detected; see `AnchorRules`."""

    authors_anchors: bool = False
    rules: AnchorRules = field(default_factory=AnchorRules)
    min_confidence: float = 0.2
    nms_iou: float = 0.4


class Detector(OnEncoder):
    """LoVT's YOLOv3 for `classes` categories of boxes on images of `image_size_px`."""

    contrasts_samples = False
    anchors: Tensor

    def __init__(
        self,
        image_encoder: ImageEncoder,
        classes: int,
        *,
        image_size_px: int,
        frozen: bool,
        warm_up: WarmUp | None = None,
        options: DetectorOptions | None = None,
    ) -> None:
        head = YoloV3(image_encoder, 5 + classes, image_size_px=image_size_px)
        super().__init__(image_encoder, head, frozen=frozen, warm_up=warm_up)
        self.options = options or DetectorOptions()
        self.strides, self.image_size_px = head.strides, image_size_px
        anchors = torch.tensor(ANCHORS_PX)
        if self.options.authors_anchors:
            anchors[0, 0, 0] = AUTHORS_FIRST_WIDTH_PX
        scaled = anchors * image_size_px / ANCHORS_FOR_PX
        self.register_buffer("anchors", scaled, persistent=False)
        self.term_weights = {"position": 2.5, "size": 2.5, "object": 1.0, "background": 0.5}
        if classes > 1:
            self.term_weights["category"] = 1.0

    def forward(self, batch: Batch) -> BoxOutputs:
        """The raw predictions of three scales."""
        assert batch.boxes is not None, "data.boxes is empty"
        maps, real = self.predict(batch)
        return BoxOutputs(
            maps=tuple(real.in_batch(each) for each in maps),
            boxes=batch.boxes,
            sample_mask=batch.sample_mask,
        )

    def contrasted(self, outputs: BoxOutputs) -> Contrasted:
        """The raw predictions: no image is compared with another."""
        return Contrasted(rows={f"scale_{n}": each for n, each in enumerate(outputs.maps)})

    def sample_terms(self, outputs: BoxOutputs) -> dict[str, Tensor]:
        """The terms of `anchor_terms`, summed over the scales, means over the images."""
        sums: dict[str, Tensor] = {}
        for scale, found in enumerate(outputs.maps):
            targets = anchor_targets(
                outputs.boxes.corners,
                outputs.boxes.category,
                outputs.boxes.present,
                anchors=self.anchors,
                scale=scale,
                stride=self.strides[scale],
                cells=found.shape[-1],
                rules=self.options.rules,
            )
            for name, values in anchor_terms(found, targets).items():
                sums[name] = sums.get(name, 0) + values
        mask = outputs.sample_mask
        return {name: mean_over_samples(values, mask) for name, values in sums.items()}

    @torch.no_grad()
    def detect(self, outputs: BoxOutputs) -> list[Detections]:
        """Boxes of `min_confidence` or more that no surer one of their class overlaps too much.

        That is by an IoU of `nms_iou` or more, of whole pixels: sides are one longer.
        """
        every = torch.cat(
            [
                decoded(each.float(), self.anchors[scale], self.strides[scale])
                for scale, each in enumerate(outputs.maps)
            ],
            dim=1,
        ).cpu()
        return [self._detect(image) for image in every]

    def _detect(self, image: Float[Tensor, "boxes numbers"]) -> Detections:
        sure = image[image[:, 4] >= self.options.min_confidence]
        corners, confidence, category = sure[:, :4], sure[:, 4], sure[:, 5:].argmax(dim=1)
        longer = corners + corners.new_tensor([0, 0, 1, 1])
        # The library drops what is above the threshold.
        threshold = math.nextafter(self.options.nms_iou, 0)
        kept = batched_nms(longer, confidence, category, threshold)
        return Detections(corners[kept], category[kept], confidence[kept])


def decoded(
    predictions: Float[Tensor, "batch channels rows columns"],
    anchors: Float[Tensor, "anchors 2"],
    stride: int,
) -> Float[Tensor, "batch boxes numbers"]:
    """Corners in pixels, then the confidence and each class's probability, of every anchor.

    The centre is σ(x) + the cell's place, and the sides are e^w times the anchor's.
    """
    count = len(anchors)
    found = predictions.unflatten(1, (count, -1)).movedim(2, -1)
    rows, columns = found.shape[2:4]
    place = torch.stack(
        torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy"), dim=-1
    ).to(found)
    centre = (found[..., :2].sigmoid() + place) * stride
    sides = found[..., 2:4].clamp_max(_MOST_LOG_SIZE).exp() * anchors[:, None, None]
    corners = torch.cat([centre - sides / 2, centre + sides / 2], dim=-1)
    return torch.cat([corners, found[..., 4:].sigmoid()], dim=-1).flatten(1, 3)
