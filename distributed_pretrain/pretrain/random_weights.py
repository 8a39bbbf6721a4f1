"""A profile with the shapes of its encoders and none of their weights: nothing is downloaded."""

from __future__ import annotations

from typing import Any

from distributed_pretrain.methods.encoders import (
    NewReportEncoderConfig,
    PretrainedReportEncoderConfig,
)
from distributed_pretrain.pretrain.settings import PretrainConfig

# BERT's base model with the cased vocabulary, which Bio_ClinicalBERT is.
_BERT_BASE: dict[str, Any] = {
    "hidden_size": 768,
    "layers": 12,
    "heads": 12,
    "intermediate_size": 3072,
}
BERT_VOCABULARY_SIZE = 28_996


def with_random_weights(config: PretrainConfig) -> PretrainConfig:
    """The profile with random weights; a BERT-base stands for any pretrained report encoder."""
    method, image_encoder = config.method, config.method.image_encoder
    changes: dict[str, Any] = {
        "image_encoder": image_encoder.model_copy(update={"weights": None}),
    }
    reports = method.report_encoder
    if isinstance(reports, PretrainedReportEncoderConfig):
        changes["report_encoder"] = NewReportEncoderConfig(
            **_BERT_BASE, frozen_layers=reports.frozen_layers
        )
        config = config.model_copy(update={"vocabulary_size": BERT_VOCABULARY_SIZE})
    return config.model_copy(update={"method": method.model_copy(update=changes)})
