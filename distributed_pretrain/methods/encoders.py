"""Which encoders a method starts from."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from data_shards.errors import InputError
from data_shards.profiles import Config
from distributed_pretrain.models.image_encoder import ImageEncoder, make_image_encoder
from distributed_pretrain.models.norms.choice import Norm
from distributed_pretrain.models.report_encoder import (
    ReportEncoder,
    new_report_encoder,
    pretrained_report_encoder,
)


class ImageEncoderConfig(Config):
    """A torchvision backbone (see `make_image_encoder`).

    `weights` is torchvision's name, a .pt or .safetensors file, or null for a random start;
    `width` and `last_stride` are for ResNets. `norm` decides what a run on several ranks computes
    (see `Norm`).
    """

    backbone: str = "resnet50"
    weights: str | None = "IMAGENET1K_V1"
    width: PositiveFloat = 1.0
    last_stride: Literal[1, 2] = 2
    norm: Norm = "sync"


class PretrainedReportEncoderConfig(Config):
    """A BERT from the Hugging Face hub (a name) or a local folder, with its own tokenizer.

    The embeddings and the first `frozen_layers` layers are not trained; null trains everything.
    """

    name: Literal["pretrained"] = "pretrained"
    model: str = "emilyalsentzer/Bio_ClinicalBERT"
    frozen_layers: NonNegativeInt | None = 6


class NewReportEncoderConfig(Config):
    """An untrained BERT, for a tokenizer trained on the reports themselves.

    Freezing the first layers of one only makes sense to time a step of that shape.
    """

    name: Literal["new"] = "new"
    hidden_size: PositiveInt = 128
    layers: PositiveInt = 2
    heads: PositiveInt = 4
    intermediate_size: PositiveInt = 512
    max_tokens: PositiveInt = 512
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    frozen_layers: NonNegativeInt | None = None


ReportEncoderConfig: TypeAlias = Annotated[
    PretrainedReportEncoderConfig | NewReportEncoderConfig, Field(discriminator="name")
]


def build_image_encoder(config: ImageEncoderConfig) -> ImageEncoder:
    """The image encoder `config` describes; InputError when there is no such one."""
    return make_image_encoder(
        config.backbone,
        weights=config.weights,
        width=config.width,
        last_stride=config.last_stride,
        norm=config.norm,
    )


def build_report_encoder(config: ReportEncoderConfig, vocabulary_size: int) -> ReportEncoder:
    """The report encoder `config` describes, for a tokenizer of `vocabulary_size` tokens.

    Raises InputError when a pretrained model cannot be loaded or knows fewer tokens.
    """
    if isinstance(config, PretrainedReportEncoderConfig):
        encoder = pretrained_report_encoder(config.model)
        if vocabulary_size > encoder.vocabulary_size:
            raise InputError(
                f"report_encoder.model={config.model}: knows {encoder.vocabulary_size} tokens, "
                f"the tokenizer {vocabulary_size}: use the tokenizer that belongs to the model"
            )
        if config.frozen_layers is not None:
            encoder.freeze(config.frozen_layers)
        return encoder
    if config.hidden_size % config.heads:
        raise InputError(
            f"report_encoder.heads={config.heads} does not divide hidden_size="
            f"{config.hidden_size}: choose a number of heads that does"
        )
    encoder = new_report_encoder(
        vocabulary_size,
        hidden_size=config.hidden_size,
        layers=config.layers,
        heads=config.heads,
        intermediate_size=config.intermediate_size,
        max_tokens=config.max_tokens,
        dropout=config.dropout,
    )
    if config.frozen_layers is not None:
        encoder.freeze(config.frozen_layers)
    return encoder
