"""A training loop as one writes it for CLIP: two encoders, a projection each, one loss.

After open_clip's train.py: autocast, normalised embeddings, learnt scale, two cross entropies,
fused AdamW. Its encoders are copies of the method's, its micro-batches the profile's.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.objective import Method

_DIM = 512


class PlainLoop(nn.Module):
    """Steps of that loop on batches in memory; two views where there are no reports."""

    def __init__(
        self, method: Method, learning_rate: float, *, lowered: torch.dtype | None
    ) -> None:
        super().__init__()
        self.image_encoder = copy.deepcopy(method.image_encoder)
        device = next(self.image_encoder.parameters()).device
        self.image_projection = nn.Linear(self.image_encoder.channels, _DIM)
        self.report_encoder = copy.deepcopy(getattr(method, "report_encoder", None))
        report_dim = self.image_encoder.channels
        if self.report_encoder is not None:
            report_dim = self.report_encoder.dim
        self.report_projection = nn.Linear(report_dim, _DIM)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.to(device).train()
        self._optimizer = torch.optim.AdamW(
            [each for each in self.parameters() if each.requires_grad], learning_rate, fused=True
        )
        self._lowered = lowered

    def step(self, micro_batches: list[Batch]) -> None:
        """One update."""
        self._optimizer.zero_grad(set_to_none=True)
        for batch in micro_batches:
            with torch.autocast(
                batch.images.device.type, self._lowered, enabled=self._lowered is not None
            ):
                images, others = self._embed(batch)
                logits = self.log_scale.exp() * images @ others.T
            labels = torch.arange(len(logits), device=logits.device)
            logits = logits.float()
            loss = F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)
            (loss / 2 / len(micro_batches)).backward()
        self._optimizer.step()

    def _embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        images = self.image_projection(self.image_encoder(batch.images).mean(dim=(2, 3)))
        if batch.second_view is not None:
            maps = self.image_encoder(batch.second_view.images)
            others = self.report_projection(maps.mean(dim=(2, 3)))
        else:
            assert self.report_encoder is not None
            report = batch.report
            tokens = self.report_encoder.embed_tokens(report.token_ids, report.token_mask)
            others = self.report_projection(tokens[:, 0])
        return F.normalize(images, dim=-1), F.normalize(others, dim=-1)
