"""A LIMITR and a GLoRIA small enough for a test, and studies with and without a lateral."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from data_shards.profiles import validate
from distributed_pretrain.batch import Batch, Lateral, ReportTokens
from distributed_pretrain.methods.gloria.method import Gloria
from distributed_pretrain.methods.gloria.settings import GloriaConfig
from distributed_pretrain.methods.limitr.method import Limitr
from distributed_pretrain.methods.limitr.settings import LimitrConfig
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.gradients import accumulate_gradients
from distributed_pretrain.training.optimizer import build_optimizer
from distributed_pretrain.training.settings import OptimizerConfig, TrainingConfig

VOCABULARY_SIZE = 40
DIM = 16
TINY: dict[str, Any] = {
    "image_encoder": {"backbone": "resnet18", "weights": None, "width": 0.125, "norm": "group"},
    "report_encoder": {
        "name": "new",
        "hidden_size": DIM,
        "layers": 2,
        "heads": 2,
        "intermediate_size": 32,
        "dropout": 0.0,
    },
    "upsample_px": None,
    "last_layers": 2,
}


def tiny_limitr(**changes: Any) -> Limitr:
    torch.manual_seed(0)
    config = validate(LimitrConfig, TINY | changes, where="test")
    return config.build(Sizes(VOCABULARY_SIZE)).double()


def tiny_gloria(**changes: Any) -> Gloria:
    torch.manual_seed(0)
    config = validate(GloriaConfig, TINY | changes, where="test")
    return config.build(Sizes(VOCABULARY_SIZE)).double()


def batch_of(rows: int, *, laterals: tuple[bool, ...] | None = None, size_px: int = 48) -> Batch:
    """Reports of one to four words, the first of two pieces; `laterals` says who has one.

    48 px give 3 x 3 regions.
    """
    generator = torch.Generator().manual_seed(1)

    def images() -> Tensor:
        shape = (rows, 1, size_px, size_px)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    count = 1 + torch.arange(rows)[:, None] * 3 % 4
    position = torch.arange(7).expand(rows, -1)
    token_mask = position < count + 3
    in_words = (position > 0) & (position < count + 2)
    token_ids = torch.randint(5, VOCABULARY_SIZE, (rows, 7), generator=generator)
    batch = Batch(
        keys=tuple(map(str, range(rows))),
        images=images(),
        report=ReportTokens(
            token_ids=token_ids * token_mask,
            token_mask=token_mask,
            sentence_index=torch.where(in_words, 0, -1),
            sentence_mask=torch.ones(rows, 1, dtype=torch.bool),
            word_index=torch.where(in_words, (position - 2).clamp(min=0), -1),
        ),
        sample_mask=torch.ones(rows, dtype=torch.bool),
    )
    if laterals is None:
        return batch
    return replace(batch, lateral=Lateral(images(), torch.tensor(laterals)))


def gradients_in_pieces(method: Method, batch: Batch, pieces: int) -> dict[str, Tensor]:
    """Loss terms, their gradients' lengths, and gradients, accumulated exactly."""
    engine = Engine(TrainingConfig(accumulation_steps=pieces))
    engine.prepare(method.train(), build_optimizer(OptimizerConfig(), method))
    found = accumulate_gradients(
        engine, batch.split(pieces), exact=True, seed=0, measure_norms=True
    )
    return (
        {f"term {name}": term for name, term in found.terms.items()}
        | {f"norm {name}": norm for name, norm in found.norms.items()}
        | {
            f"gradient {name}": parameter.grad.clone()
            for name, parameter in engine.objective.named_parameters()
            if parameter.grad is not None
        }
    )
