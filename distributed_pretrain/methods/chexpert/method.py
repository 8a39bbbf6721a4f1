"""CheXpert-supervised: the encoder learns the findings that a labeler read in the report."""

from __future__ import annotations

from torch import Tensor, nn

from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.labels import LabelOutputs, known_labels, multi_label_term
from distributed_pretrain.methods.objective import Contrasted, Method
from distributed_pretrain.models.image_encoder import ImageEncoder


class Chexpert(Method):
    """A linear layer over the average-pooled feature map, and its cross entropy.

    Unknown labels (not mentioned or uncertain) reach no gradient or loss.
    """

    predicts_labels = True

    def __init__(self, image_encoder: ImageEncoder, classes: int) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.classifier = nn.Linear(image_encoder.channels, classes)
        self.term_weights = {"multi_label": 1.0}

    def forward(self, batch: Batch) -> LabelOutputs:
        """A logit for each label."""
        assert batch.labels is not None, "data.labels is empty"
        last_map = self.image_encoder(batch.images, batch.sample_mask)
        return LabelOutputs(
            logits=self.classifier(last_map.mean(dim=(2, 3))),
            labels=batch.labels,
            sample_mask=batch.sample_mask,
        )

    def contrasted(self, outputs: LabelOutputs) -> Contrasted:
        """Logits and labels."""
        return known_labels(outputs)

    def batch_terms(self, contrasted: Contrasted) -> dict[str, Tensor]:
        """`multi_label`, the mean over the known labels of all ranks."""
        return multi_label_term(contrasted)
