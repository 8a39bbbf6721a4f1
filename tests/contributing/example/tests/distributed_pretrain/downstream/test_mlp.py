"""The perceptron has one hidden layer of the size that is asked for."""

from __future__ import annotations

import torch

from distributed_pretrain.downstream.protocols.base import HeadSizes
from distributed_pretrain.downstream.protocols.mlp import MlpConfig
from tests.tiny.methods import tiny_method, tiny_profile


def test_the_hidden_layer_has_the_size_asked_for() -> None:
    encoder = tiny_method(tiny_profile("phantom_clip"))
    head = MlpConfig(hidden_dim=7).build(encoder, HeadSizes(classes=3, image_size_px=64))
    layers = [each for each in head.modules() if isinstance(each, torch.nn.Linear)]
    channels = encoder.image_encoder.channels
    assert [(each.in_features, each.out_features) for each in layers] == [(channels, 7), (7, 3)]
