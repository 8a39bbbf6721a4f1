"""CheXpert-supervised: the settings of pre-training by labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from data_shards.errors import InputError
from distributed_pretrain.methods.settings import MethodConfig, Sizes

if TYPE_CHECKING:
    from distributed_pretrain.methods.labels import LabelClassifier


class ChexpertConfig(MethodConfig):
    """The encoder learns the findings that a labeler read in the report: `data.labels`."""

    name: Literal["chexpert"] = "chexpert"
    report_encoder: None = None

    def build(self, sizes: Sizes) -> LabelClassifier:
        """The classifier of all labels; InputError without any."""
        from distributed_pretrain.methods.labels import LabelClassifier

        if sizes.classes == 0:  # before anything is downloaded
            raise InputError(
                "data.labels=[]: method.name=chexpert learns to predict labels: "
                'name them, for example data.labels=["Edema", "Pneumonia"]'
            )
        return LabelClassifier(self.image_encoder.build(), sizes.classes)
