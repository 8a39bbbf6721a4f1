"""An encoder that reads reports packed gives what it gives of padded ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distributed_pretrain.models.report_encoder import new_report_encoder
from distributed_pretrain.packing import Packing


@pytest.mark.parametrize("alone", [False, True], ids=["in context", "alone"])
@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_packed_reports_are_encoded_as_padded_ones(kind: str, alone: bool) -> None:
    """Of sentences, words and attention, and their gradients; longer than ModernBERT's window."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "layers": 3, "heads": 2, "intermediate_size": 32}
    encoder = new_report_encoder(
        40, architecture=kind, max_tokens=160, dropout=0.0, **sizes
    ).double()
    lengths = [150, 9, 30, 5, 0, 90]
    column = torch.arange(max(lengths))
    mask = column < torch.tensor(lengths)[:, None]
    within = mask & (column > 0) & mask.roll(-1, 1)
    index = torch.where(within, column // 70, -1)
    sentences = (index[..., None] == torch.arange(3)).any(dim=1)
    torch.manual_seed(1)
    ids = torch.randint(1, 40, mask.shape) * mask
    packing = Packing.of(lengths, len(column), ids.device)
    assert packing.rows < len(lengths)

    def encoded(packing: Packing | None) -> dict[str, Tensor]:
        encoder.zero_grad()
        found = {"sentences": encoder(ids, mask, index, sentences, alone=alone, packing=packing)}
        if not alone:
            found["words"] = encoder.embed_tokens(ids, mask, last_layers=2, packing=packing)
            last, paid = encoder.embed_tokens_with_attention(ids, mask, packing=packing)
            found |= {"last": last, "paid": paid}
        found = {
            name: torch.where(mask[..., None], each, 0) if name in ("words", "last") else each
            for name, each in found.items()
        }
        torch.stack([each.square().sum() for each in found.values()]).sum().backward()
        return found | {
            name: p.grad for name, p in encoder.named_parameters() if p.grad is not None
        }

    torch.testing.assert_close(encoded(packing), encoded(None), rtol=1e-10, atol=1e-10)
