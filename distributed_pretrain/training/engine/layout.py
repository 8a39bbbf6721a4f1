"""What the states of a model and its Adam must look like, held against those of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from distributed_pretrain.run_folder.tensor_files import first_mismatch, is_finite

SQUARES = "exp_avg_sq"
MOMENTS = ("exp_avg", SQUARES)


class StateLayout:
    """Names, shapes, types and memory layout of a state dict and of what is trained, in order."""

    def __init__(self, model: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> None:
        self._model = {name: _like(tensor) for name, tensor in model.items()}
        self._not_finite = {name for name, tensor in model.items() if not is_finite(tensor)}
        self._parameters = [_like(each) for each in parameters]

    def mismatch(self, model: Mapping[str, Tensor], optimizer: Any) -> str | None:
        """The first difference of other states, or value that no training gives; None if none.

        A tensor that holds NaN or an infinity in the model as it was built may always do so.
        """
        if found := first_mismatch(model, self._model):
            return f"model: {found}"
        for name, tensor in model.items():
            if name not in self._not_finite and not is_finite(tensor):
                return f"model: {name!r} holds numbers that are not finite"
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
            updates = float(moments["step"])
            if not (0 <= updates < torch.inf and updates.is_integer()):
                return f"optimizer: parameter {number} was updated {updates} times"
            for name in MOMENTS:
                if not is_finite(moments[name]):
                    return f"optimizer: {name!r} of parameter {number} is not finite"
            if bool((moments[SQUARES] < 0).any()):
                return f"optimizer: {SQUARES!r} of parameter {number} has numbers below zero"
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
