"""What objectives share that predict labels: a mean over the known ones of all samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from distributed_pretrain.losses.multi_label import multi_label_loss
from distributed_pretrain.methods.objective import Contrasted, Outputs


@dataclass(frozen=True, kw_only=True)
class LabelOutputs(Outputs):
    """Of an objective that predicts labels (see `Batch.labels`)."""

    logits: Float[Tensor, "batch classes"]
    labels: Float[Tensor, "batch classes"]


def known_labels(outputs: LabelOutputs) -> Contrasted:
    """Logits and labels: how many are known differs between micro-batches and ranks."""
    # NaN (not mentioned) would look like an output that is not finite; -1 is unknown as well.
    labels = torch.where(outputs.labels.isnan(), -1.0, outputs.labels)
    return Contrasted(
        rows={"logits": outputs.logits, "labels": labels, "sample_mask": outputs.sample_mask}
    )


def multi_label_term(contrasted: Contrasted) -> dict[str, Tensor]:
    """`multi_label`, the mean over the known labels of all ranks."""
    rows = contrasted.rows
    term = multi_label_loss(rows["logits"], rows["labels"], sample_mask=rows["sample_mask"])
    return {"multi_label": term}
