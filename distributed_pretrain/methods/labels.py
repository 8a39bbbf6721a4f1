"""What learns to predict labels: a linear layer on an encoder, and its cross entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from jaxtyping import Float
from torch import Tensor, nn

from data_shards.errors import InputError
from distributed_pretrain.batch import Batch
from distributed_pretrain.losses.multi_label import multi_label_loss
from distributed_pretrain.methods.objective import Method, Outputs
from distributed_pretrain.models.image_encoder import ImageEncoder

_MEANS = "means"


@dataclass(frozen=True, kw_only=True)
class LabelOutputs(Outputs):
    """Of an objective that predicts labels: 1 present, 0 absent; others are unknown."""

    logits: Float[Tensor, "batch classes"]
    labels: Float[Tensor, "batch classes"]


class LabelClassifier(Method):
    """A linear layer over the average-pooled feature map, and its cross entropy.

    Unknown labels (not mentioned or uncertain) reach no gradient or loss. How many are known
    differs between micro-batches and ranks: the mean is one over the whole batch. A `frozen`
    encoder keeps its weights and statistics. It gets images of `upsample_px`, as in the method that
    trained it. Raises InputError without labels.
    """

    predicts_labels = True

    def __init__(
        self,
        image_encoder: ImageEncoder,
        classes: int,
        *,
        frozen: bool = False,
        upsample_px: int | None = None,
    ) -> None:
        super().__init__()
        if classes == 0:
            raise InputError(
                "data.labels=[]: there is nothing to tell apart: name labels, for example "
                'data.labels=["Edema", "Pneumonia"]'
            )
        self.frozen, self.upsample_px = frozen, upsample_px
        self.image_encoder = image_encoder.requires_grad_(False) if frozen else image_encoder
        self.classifier: nn.Module = nn.Linear(image_encoder.channels, classes)
        self.term_weights = {"multi_label": 1.0}

    def train(self, mode: bool = True) -> Self:
        """The head's mode; a frozen encoder stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.image_encoder.eval()
        return self

    def features_of(self, batch: Batch) -> dict[str, Tensor]:
        """What the head reads: the means of the last feature maps."""
        last_map = self.image_encoder(self.upsampled(batch.images), batch.encoded_mask)
        return {_MEANS: last_map.mean(dim=(2, 3))}

    def forward(self, batch: Batch) -> LabelOutputs:
        """A logit for each label."""
        assert batch.labels is not None, "data.labels is empty"
        features = self.features_of(batch) if batch.features is None else batch.features
        return LabelOutputs(
            logits=self.classifier(features[_MEANS]),
            # NaN (not mentioned) would look like an output that is not finite.
            labels=batch.labels.nan_to_num(nan=-1.0),
            sample_mask=batch.sample_mask,
        )

    def batch_terms(self, logits: Tensor, labels: Tensor, sample_mask: Tensor) -> dict[str, Tensor]:
        """`multi_label`, the mean over the known labels of all ranks."""
        return {"multi_label": multi_label_loss(logits, labels, sample_mask=sample_mask)}
