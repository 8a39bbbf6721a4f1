"""LoVT's detection by YOLOv3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from distributed_pretrain.downstream.protocols.base import HeadSizes, LocalizedConfig, Targets

if TYPE_CHECKING:
    from distributed_pretrain.methods.objective import Method, Objective

Share = Annotated[float, Field(ge=0, le=1)]


class YoloConfig(LocalizedConfig):
    """`data.boxes` names what is detected.

    Detected is what has a confidence of `min_confidence` or more and does not overlap a surer box
    of its class by an IoU of `nms_iou` or more. `authors` is what LoVT's authors did where they
    differ from YOLOv3 (see `AnchorRules`), and from COCO's anchors by a typing error; the published
    figures come of it.
    """

    TARGETS: ClassVar[Targets] = "boxes"

    name: Literal["yolov3"] = "yolov3"
    anchors: Literal["coco", "authors"] = "coco"
    assign: Literal["best_scale", "authors"] = "best_scale"
    anchor_iou: Literal["exact", "authors"] = "exact"
    positives_as_background: Literal["excluded", "authors"] = "excluded"
    min_confidence: Share = 0.2
    nms_iou: Annotated[float, Field(gt=0, le=1)] = 0.4

    def build(self, encoder: Method, sizes: HeadSizes) -> Objective:
        """The detector on the encoder."""
        from distributed_pretrain.downstream.heads.detector import Detector, DetectorOptions
        from distributed_pretrain.losses.anchor_boxes import AnchorRules

        rules = AnchorRules(
            best_scale=self.assign == "best_scale",
            exact_iou=self.anchor_iou == "exact",
            excludes_positives=self.positives_as_background == "excluded",
        )
        options = DetectorOptions(
            authors_anchors=self.anchors == "authors",
            rules=rules,
            min_confidence=self.min_confidence,
            nms_iou=self.nms_iou,
        )
        return Detector(
            encoder.image_encoder,
            **sizes._asdict(),
            frozen=self.is_frozen,
            warm_up=self.warm_up(),
            options=options,
        )
