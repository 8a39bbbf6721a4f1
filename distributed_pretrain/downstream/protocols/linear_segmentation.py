"""LoVT's linear segmentation: a 1x1 convolution on the last map of a frozen encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from distributed_pretrain.downstream.protocols.base import HeadSizes, ProtocolConfig, Targets

if TYPE_CHECKING:
    from distributed_pretrain.methods.objective import Method, Objective


class LinearSegmentationConfig(ProtocolConfig):
    """The encoder is frozen, its statistics too; `data.masks` names what is outlined.

    The loss is the soft Dice over a batch: the mean over classes, or (`pooled`, as LoVT's authors
    train NIH) one over the pixels of all classes together.
    """

    TARGETS: ClassVar[Targets] = "masks"

    name: Literal["linear_segmentation"] = "linear_segmentation"
    dice: Literal["per_class", "pooled"] = "per_class"

    @property
    def is_frozen(self) -> bool:
        """Yes."""
        return True

    def build(self, encoder: Method, sizes: HeadSizes) -> Objective:
        """The head."""
        from distributed_pretrain.downstream.heads.linear_segmentation import LinearSegmentation
        from distributed_pretrain.downstream.heads.segmenter import Segmenter

        head = LinearSegmentation(encoder.image_encoder, **sizes._asdict())
        apart = self.dice == "per_class"
        return Segmenter(encoder.image_encoder, head, frozen=True, classes_apart=apart)
