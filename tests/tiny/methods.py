"""Every method with encoders small enough for a test, by its profile or from its settings."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

from data_shards.profiles import load_profile, validate
from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.gloria.method import Gloria
from distributed_pretrain.methods.gloria.settings import GloriaConfig
from distributed_pretrain.methods.limitr.method import Limitr
from distributed_pretrain.methods.limitr.settings import LimitrConfig
from distributed_pretrain.methods.lovt.method import Lovt
from distributed_pretrain.methods.lovt.settings import LovtConfig
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.methods.settings import MethodConfig, Sizes
from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.training.engine.ddp import Engine, build_optimizer
from distributed_pretrain.training.gradients import accumulate_gradients
from distributed_pretrain.training.settings import OptimizerConfig, TrainingConfig
from tests.paths import CONFIGS
from tests.tiny.sizes import HEADS, IMAGE_ENCODER, REPORT_ENCODER, VOCABULARY_SIZE

PROFILES_FOLDER = CONFIGS / "pretrain"
PROFILES = {path.stem: path for path in sorted(PROFILES_FOLDER.glob("*.yaml"))}
SIZES = Sizes(VOCABULARY_SIZE)

# Running statistics would tell micro-batches from the whole.
_PAIRWISE: dict[str, Any] = {
    "image_encoder": IMAGE_ENCODER | {"norm": "group"},
    "upsample_px": None,
    "last_layers": 2,
}
# The smallest that torchvision has would be two hundred times as large.
_TRANSFORMER = {"backbone": "timm/test_vit", "weights": None}

Settings = TypeVar("Settings", bound=MethodConfig)


def tiny_settings(kind: type[Settings], **changes: Any) -> Settings:
    """The defaults of a method with small encoders and heads, without dropout; then `changes`."""
    small = {
        "image_encoder": IMAGE_ENCODER,
        "report_encoder": REPORT_ENCODER | {"dropout": 0.0},
        **{name: size for name, size in HEADS.items() if name in kind.model_fields},
    }
    return validate(kind, small | changes, where="test")


def tiny_lovt(**changes: Any) -> Lovt:
    """The same each time."""
    torch.manual_seed(0)
    return tiny_settings(LovtConfig, **changes).build(SIZES)


def tiny_limitr(**changes: Any) -> Limitr:
    """The same each time, in float64."""
    torch.manual_seed(0)
    return tiny_settings(LimitrConfig, **_PAIRWISE | changes).build(SIZES).double()


def tiny_gloria(**changes: Any) -> Gloria:
    """The same each time, in float64."""
    torch.manual_seed(0)
    return tiny_settings(GloriaConfig, **_PAIRWISE | changes).build(SIZES).double()


def tiny_profile(name: str, *, norm: Norm = "sync", across_ranks: bool = False) -> PretrainConfig:
    """The profile with small encoders and heads; everything else is as in the file.

    `norm` is that of both. With `across_ranks` terms that a method may also
    compare within a rank are compared over all of them.
    """
    config = load_profile(PretrainConfig, PROFILES[name])
    method = config.method.model_dump()
    is_transformer = config.method.image_encoder.backbone.startswith("vit")
    resnet = IMAGE_ENCODER | {"last_stride": 1, "norm": norm}
    method["image_encoder"] |= _TRANSFORMER if is_transformer else resnet
    if method["report_encoder"] is not None:
        # Six layers: LIMITR sums four of them, MGCA keeps six.
        method["report_encoder"] = REPORT_ENCODER | {"layers": 6, "dropout": 0.0}
    changes: dict[str, Any] = HEADS | {"projection_norm": norm}
    if across_ranks:
        changes |= {"external_negatives": "global"}
    method |= {key: value for key, value in changes.items() if key in method}
    values = config.model_dump() | {"method": method}
    return PretrainConfig.model_validate(values)


def tiny_method(config: PretrainConfig) -> Method:
    """The method of a tiny profile, the same each time."""
    torch.manual_seed(0)
    return config.method.build(Sizes(VOCABULARY_SIZE, classes=len(config.data.labels)))


def state_after_step(method: Method, batch: Batch) -> dict[str, Tensor]:
    """Loss terms, gradients and buffers after a forward and a backward."""
    method.zero_grad()
    method.start_step(epoch=1)
    torch.manual_seed(0)
    terms = method.loss(method(batch))
    terms["total"].backward()
    return (
        {f"loss {name}": term.detach() for name, term in terms.items()}
        | {
            f"gradient {name}": parameter.grad.clone()
            for name, parameter in method.named_parameters()
            if parameter.grad is not None
        }
        | {f"buffer {name}": buffer.clone() for name, buffer in method.named_buffers()}
    )


def gradients_in_pieces(method: Method, batch: Batch, pieces: int) -> dict[str, Tensor]:
    """Loss terms, their gradients' lengths, and gradients, accumulated exactly."""
    engine = Engine(TrainingConfig(accumulation_steps=pieces))
    engine.prepare(method.train(), build_optimizer(OptimizerConfig(), method))
    found = accumulate_gradients(
        engine, batch.split([1] * pieces), exact=True, seed=0, measure_norms=True
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
