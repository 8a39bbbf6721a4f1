"""An encoder as it starts: Random and ImageNet initialisation, the baselines without training."""

from __future__ import annotations

from typing import Literal, NoReturn

from data_shards.profiles import Config
from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.encoders import ImageEncoderConfig, build_image_encoder
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.models.image_encoder import ImageEncoder


class InitialConfig(Config):
    """`image_encoder.weights` decides: `IMAGENET1K_V1` (or another start), or null for random."""

    name: Literal["initial"] = "initial"
    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    report_encoder: None = None


class Initial(Method):
    """Has no loss: a run saves its one checkpoint and is complete."""

    def __init__(self, image_encoder: ImageEncoder) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.term_weights = {}

    def forward(self, batch: Batch) -> NoReturn:
        """Never called."""
        raise AssertionError(f"a starting point learns nothing from {len(batch.keys)} samples")


def build_initial(config: InitialConfig) -> Initial:
    """The start that `config` describes; InputError when its weights cannot be loaded."""
    return Initial(build_image_encoder(config.image_encoder))
