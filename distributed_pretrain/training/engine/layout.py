"""What the states of a model and its Adam must look like, held against those of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from distributed_pretrain.run_folder.tensor_files import first_mismatch

MOMENTS = ("exp_avg", "exp_avg_sq")


class StateLayout:
    """Names, shapes, types and memory layout of a state dict and of what is trained, in order."""

    def __init__(self, model: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> None:
        self._model = {name: _like(tensor) for name, tensor in model.items()}
        self._parameters = [_like(each) for each in parameters]

    def mismatch(self, model: Mapping[str, Tensor], optimizer: Any) -> str | None:
        """The first difference of other states; None where they fit."""
        if found := first_mismatch(model, self._model):
            return f"model: {found}"
        match optimizer:
            case {"state": dict(state), "param_groups": [{"params": list(numbers), "lr": float()}]}:
                pass
            case _:
                return "optimizer: not the state of an Adam with one group"
        if numbers != list(range(len(self._parameters))):
            return f"optimizer: not of {len(self._parameters)} parameters"
        for number, moments in state.items():
            if type(number) is not int or not 0 <= number < len(self._parameters):
                return f"optimizer: a state of parameter {number!r}"
            if not isinstance(moments, dict) or not all(
                isinstance(name, str) and isinstance(each, Tensor) for name, each in moments.items()
            ):
                return f"optimizer: the state of parameter {number} holds other things than tensors"
            like = self._parameters[number]
            wanted = dict.fromkeys(MOMENTS, like) | {
                "step": like.new_empty((), dtype=torch.float32)
            }
            if found := first_mismatch(moments, wanted):
                return f"optimizer: of parameter {number}, {found}"
            if not 0 <= float(moments["step"]) < torch.inf:
                return f"optimizer: parameter {number} was updated {float(moments['step'])} times"
        return None

    def laid_out(self, state: Mapping[int, Mapping[str, Tensor]]) -> dict[int, dict[str, Tensor]]:
        """Copies of an optimizer's states, the moments laid out in memory as their parameters.

        Fused updates walk both together; and a file that is cut meanwhile takes nothing away.
        """
        return {
            number: {
                name: torch.empty_like(
                    self._parameters[number] if name in MOMENTS else each, device=each.device
                ).copy_(each)
                for name, each in moments.items()
            }
            for number, moments in state.items()
        }


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta", requires_grad=False)
