"""Methods that read regions, words or sentences, on encoders that are no BERT and no torchvision's.

What a method promises besides is held for every profile by `test_every_method`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from data_shards.errors import InputError
from data_shards.profiles import validate
from distributed_pretrain.methods.encoders import NewReportEncoderConfig
from distributed_pretrain.pretrain.settings import PretrainConfig
from tests.tiny.batches import random_batch
from tests.tiny.methods import tiny_method, tiny_profile

ENCODERS: dict[str, dict[str, dict[str, Any]]] = {
    "modernbert": {"report_encoder": {"architecture": "modernbert"}},
    "timm ResNet": {"image_encoder": {"backbone": "timm/test_resnet"}},
    "timm ViT": {"image_encoder": {"backbone": "timm/test_vit"}},
}
PLAIN = {"width": 1.0, "last_stride": 2, "weights": None}


def profile_with(encoder: str, method: str) -> PretrainConfig:
    config = tiny_profile(f"{method}_a100")
    values = config.method.model_dump()
    for part, changes in ENCODERS[encoder].items():
        values[part] |= (PLAIN if part == "image_encoder" else {}) | changes
    if "upsample_px" in values:
        values["upsample_px"] = None
    return PretrainConfig.model_validate(config.model_dump() | {"method": values})


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("method", ["lovt", "gloria", "limitr", "mgca"])
def test_twenty_steps_lower_the_loss_and_reach_every_parameter(method: str, encoder: str) -> None:
    config = profile_with(encoder, method)
    model, batch = tiny_method(config).train(), random_batch(config, 6)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3)
    totals = []
    for step in range(20):
        torch.manual_seed(0)
        model.start_step(epoch=step // 2)
        total = model.loss(model(batch))["total"]
        optimizer.zero_grad()
        total.backward()
        assert [n for n, p in trained.items() if p.grad is None] == []
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < totals[0] - 0.05 * abs(totals[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "heads=3 does not divide hidden_size=16: choose"),
        ({"heads": 16}, None),
        ({"architecture": "modernbert", "heads": 8}, None),
        ({"architecture": "modernbert", "heads": 16}, "hidden_size=16 into parts of even size"),
    ],
)
def test_heads_that_do_not_fit_the_architecture_are_refused(
    changes: dict[str, Any], message: str | None
) -> None:
    values = {"name": "new", "hidden_size": 16, "layers": 1, "intermediate_size": 16} | changes
    config = validate(NewReportEncoderConfig, values, where="test")
    if message is None:
        tokens = torch.randint(1, 40, (2, 5))
        hidden = config.build(40).embed_tokens(tokens, tokens > 0)
        assert hidden.shape == (2, 5, 16)
    else:
        with pytest.raises(InputError, match=message):
            config.build(40)
