"""What an objective that predicts masks gives."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from distributed_pretrain.methods.objective import Outputs


@dataclass(frozen=True, kw_only=True)
class MaskOutputs(Outputs):
    """A logit for each pixel and class, and the masks, numbered as in `data.masks`."""

    logits: Float[Tensor, "batch classes height width"]
    masks: Bool[Tensor, "batch classes height width"]
