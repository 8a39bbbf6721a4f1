"""LoVT trained by a bare loop on batches in memory: what benchmarks compare training with."""

from __future__ import annotations

import torch
from pydantic import PositiveFloat, PositiveInt

from data_shards.profiles import Config
from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.encoders import ImageEncoderConfig, NewReportEncoderConfig
from distributed_pretrain.methods.lovt.method import Lovt
from distributed_pretrain.methods.lovt.settings import LovtConfig
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.pretrain.full_batch import full_batch
from distributed_pretrain.training.engine.ddp import Engine, build_optimizer
from distributed_pretrain.training.settings import OptimizerConfig

LEARNING_RATE = 1e-5
TOKENS = 64
# Fewer than any vocabulary here has.
_TOKEN_IDS = 1000


class LovtSizes(Config):
    """The paper's model sizes (random weights: nothing is downloaded), and pairs a step."""

    batch: PositiveInt = 8
    image_size_px: PositiveInt = 224
    backbone: str = "resnet50"
    width: PositiveFloat = 1.0
    hidden_size: PositiveInt = 768
    layers: PositiveInt = 12
    embedding_dim: PositiveInt = 512
    projection_hidden_dim: PositiveInt = 2048

    def method(self, *, frozen_layers: int | None = None, norm: Norm = "sync") -> LovtConfig:
        """The method's settings; `norm` is that of the trunk."""
        return LovtConfig(
            image_encoder=ImageEncoderConfig(
                backbone=self.backbone, width=self.width, weights=None, norm=norm
            ),
            report_encoder=NewReportEncoderConfig(
                hidden_size=self.hidden_size,
                layers=self.layers,
                heads=max(1, self.hidden_size // 64),
                intermediate_size=4 * self.hidden_size,
                frozen_layers=frozen_layers,
            ),
            embedding_dim=self.embedding_dim,
            projection_hidden_dim=self.projection_hidden_dim,
        )

    def build(self, vocabulary_size: int, *, norm: Norm = "sync") -> Lovt:
        """LoVT in training mode, the same weights each time. Raises InputError for odd sizes."""
        torch.manual_seed(0)
        return self.method(norm=norm).build(Sizes(vocabulary_size)).train()


def prepare(engine: Engine, lovt: Lovt) -> None:
    """Give `engine` the method, and AdamW."""
    engine.prepare(lovt.to(engine.device), build_optimizer(OptimizerConfig(), lovt))


def noise_batch(sizes: LovtSizes, device: torch.device) -> Batch:
    """Pairs without padding that show and say nothing, the same ones each time."""
    torch.manual_seed(0)
    batch = full_batch(device, rows=sizes.batch, image_size_px=sizes.image_size_px, tokens=TOKENS)
    batch.images.normal_()
    batch.report.token_ids.random_(1, _TOKEN_IDS)
    return batch


def bare_step(engine: Engine, batch: Batch) -> None:
    """What no training can leave out: forward, loss, backward, norm, update."""
    engine.backward(engine.objective.loss(engine.forward(batch))["total"])
    engine.update(LEARNING_RATE, clip_norm=None, norm=engine.gradient_norm())
