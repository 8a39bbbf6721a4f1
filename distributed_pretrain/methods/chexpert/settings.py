"""The settings of supervised pre-training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from data_shards.errors import InputError
from distributed_pretrain.methods.settings import MethodConfig, Sizes

if TYPE_CHECKING:
    from distributed_pretrain.methods.chexpert.method import Chexpert


class ChexpertConfig(MethodConfig):
    """Supervised pre-training; `data.labels` names what is predicted."""

    name: Literal["chexpert"] = "chexpert"
    report_encoder: None = None

    def build(self, sizes: Sizes) -> Chexpert:
        """The classifier of `classes` labels; InputError without any."""
        from distributed_pretrain.methods.chexpert.method import Chexpert

        if sizes.classes == 0:
            raise InputError(
                "data.labels=[]: method.name=chexpert learns to predict labels: "
                'name them, for example data.labels=["Edema", "Pneumonia"]'
            )
        return Chexpert(self.image_encoder.build(), sizes.classes)
