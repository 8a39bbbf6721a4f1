"""What a synchronised batch norm sends and gives; its figures over ranks: test_sync_norm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distributed_pretrain.models.norms import rows, synchronised
from distributed_pretrain.models.norms.synchronised import sync_batch_norm


class Exchange:
    """Stands for the ranks: keeps what each exchange sends, and gives it back."""

    def __init__(self) -> None:
        self.sent: list[tuple[torch.dtype, torch.Size]] = []

    def __call__(self, values: Tensor) -> Tensor:
        self.sent.append((values.dtype, values.shape))
        return values


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch) -> Exchange:
    """One rank's exchanges, of which there are no others."""
    found = Exchange()
    for module in (rows, synchronised):
        monkeypatch.setattr(module, "sum_of_statistics", found)
    return found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_rank_without_maps_sends_as_much_and_of_the_same_type(
    dtype: torch.dtype, exchange: Exchange
) -> None:
    """NCCL does not check sizes: it would hang, or mix the numbers up."""
    sent = []
    for maps in (2, 0):
        layer = nn.BatchNorm2d(3)
        values = torch.randn(maps, 3, 4, 4, dtype=dtype, requires_grad=True)
        normalised = sync_batch_norm(layer, values)
        assert normalised.dtype == dtype
        normalised.float().square().sum().backward()
        assert values.grad is not None
        assert values.grad.shape == values.shape
        assert layer.weight.grad is not None
        sent.append(exchange.sent[:])
        exchange.sent.clear()
    assert sent[0] == sent[1]
    assert [shape.numel() for _, shape in sent[0]] == [2 * 3 + 1, 2 * 3]
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()
    assert not dict(layer.named_buffers())["running_mean"].any()


def test_of_one_rank_it_is_torchs_batch_norm(exchange: Exchange) -> None:
    torch.manual_seed(0)
    ours, reference = nn.BatchNorm2d(3, 1e-3, 0.2).double(), nn.BatchNorm2d(3, 1e-3, 0.2).double()
    nn.init.uniform_(ours.weight, 0.5, 1.5)
    reference.load_state_dict(ours.state_dict())
    values = (torch.randn(4, 3, 5, 5) * 2 + 30).double().requires_grad_()
    again = values.detach().clone().requires_grad_()
    sync_batch_norm(ours, values).pow(3).sum().backward()
    reference(again).pow(3).sum().backward()
    assert len(exchange.sent) == 2
    torch.testing.assert_close(values.grad, again.grad)
    expected = dict(reference.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(reference.named_buffers()))
