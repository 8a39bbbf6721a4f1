"""What learns to predict masks: a head on an encoder, and the soft Dice of its probabilities."""

from __future__ import annotations

from torch import Tensor

from distributed_pretrain.batch import Batch
from distributed_pretrain.downstream.heads.on_encoder import OnEncoder, WarmUp
from distributed_pretrain.downstream.heads.pyramid import PyramidHead
from distributed_pretrain.losses.soft_dice import soft_dice_loss
from distributed_pretrain.methods.masks import MaskOutputs
from distributed_pretrain.models.image_encoder import ImageEncoder


class Segmenter(OnEncoder):
    """LoVT's segmentation; `classes_apart` is that of `soft_dice_loss`."""

    predicts_masks = True

    def __init__(
        self,
        image_encoder: ImageEncoder,
        head: PyramidHead,
        *,
        frozen: bool,
        warm_up: WarmUp | None = None,
        classes_apart: bool = True,
    ) -> None:
        super().__init__(image_encoder, head, frozen=frozen, warm_up=warm_up)
        self.classes_apart = classes_apart
        self.term_weights = {"soft_dice": 1.0}

    def forward(self, batch: Batch) -> MaskOutputs:
        """A logit for each pixel and class."""
        assert batch.masks is not None, "data.masks is empty"
        logits, real = self.predict(batch)
        return MaskOutputs(
            logits=real.in_batch(logits), masks=batch.masks, sample_mask=batch.sample_mask
        )

    def batch_terms(self, logits: Tensor, masks: Tensor, sample_mask: Tensor) -> dict[str, Tensor]:
        """`soft_dice`, pooled over the samples of all ranks."""
        loss = soft_dice_loss(
            logits,
            masks.to(logits.dtype),
            sample_mask=sample_mask,
            classes_apart=self.classes_apart,
        )
        return {"soft_dice": loss}
