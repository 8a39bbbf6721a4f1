"""CheXpert-supervised: the encoder learns the findings that a labeler read in the report."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from data_shards.errors import InputError
from data_shards.profiles import Config
from distributed_pretrain.batch import Batch
from distributed_pretrain.losses.multi_label import multi_label_loss
from distributed_pretrain.methods.encoders import ImageEncoderConfig, build_image_encoder
from distributed_pretrain.methods.objective import ClassifierOutputs, Coupled, Method
from distributed_pretrain.models.image_encoder import ImageEncoder


class ChexpertConfig(Config):
    """Supervised pre-training; `data.labels` names what is predicted."""

    name: Literal["chexpert"] = "chexpert"
    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    report_encoder: None = None


class Chexpert(Method):
    """A linear layer over the average-pooled feature map, and its cross entropy.

    Unknown labels (not mentioned or uncertain) and samples whose `sample_mask` is False reach no
    gradient or loss, such samples no statistic either.
    """

    predicts_labels = True

    def __init__(self, image_encoder: ImageEncoder, classes: int) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.classifier = nn.Linear(image_encoder.channels, classes)
        self.term_weights = {"multi_label": 1.0}

    def forward(self, batch: Batch) -> ClassifierOutputs:
        """A logit for each label."""
        assert batch.labels is not None, "data.labels is empty"
        last_map = self.image_encoder(batch.images, batch.sample_mask)
        return ClassifierOutputs(
            logits=self.classifier(last_map.mean(dim=(2, 3))),
            labels=batch.labels,
            sample_mask=batch.sample_mask,
        )

    def coupled(self, outputs: ClassifierOutputs) -> Coupled:
        """Logits and labels: the mean is one over the known labels of the whole batch."""
        # NaN (not mentioned) would look like an output that is not finite; -1 is unknown as well.
        labels = torch.where(outputs.labels.isnan(), -1.0, outputs.labels)
        return Coupled(
            rows={"logits": outputs.logits, "labels": labels, "sample_mask": outputs.sample_mask},
            shared={},
        )

    def coupled_terms(self, coupled: Coupled) -> dict[str, Tensor]:
        """`multi_label`, the mean over the known labels of all ranks."""
        rows = coupled.rows
        term = multi_label_loss(rows["logits"], rows["labels"], sample_mask=rows["sample_mask"])
        return {"multi_label": term}


def build_chexpert(config: ChexpertConfig, *, classes: int) -> Chexpert:
    """The classifier of `classes` labels.

    Raises InputError without labels, and for an encoder that cannot be made.
    """
    if classes == 0:
        raise InputError(
            "data.labels=[]: method.name=chexpert learns to predict labels: "
            'name them, for example data.labels=["Edema", "Pneumonia"]'
        )
    return Chexpert(build_image_encoder(config.image_encoder), classes)
