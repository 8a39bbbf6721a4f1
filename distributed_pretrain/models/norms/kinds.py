"""The kinds of normalisation there are; needs no torch, so that settings may name them."""

from __future__ import annotations

from typing import Literal, TypeAlias

Norm: TypeAlias = Literal["sync", "local", "frozen", "group"]
"""Where a norm's statistics come from, which decides what a run on several ranks computes.

sync    Batch norm over the real rows (or positions) of all ranks: outputs, gradients and running
        statistics are those of one process with the whole batch, on gloo as on NCCL, for one
        exchange of 2 x channels + 1 numbers a layer in forward and one in backward. Accumulation
        still takes the statistics of one micro-batch at a time. `training.norm_ranks` exchanges
        among that many ranks only.
local   Batch norm over this rank's own rows: nothing is exchanged, but the result depends on the
        number of ranks. On 4 ranks the gradient's cosine to that of the whole batch was 0.907
        in a trial. In one process it is the same as `sync`: what LoVT's authors trained with, on
        their one GPU.
frozen  Batch norm with fixed running statistics: exact under any split and accumulation, cheap,
        and sensible with the statistics of pretrained weights only. The image encoder's scale
        and shift are fixed too; those of a head are trained, and as a new head's statistics are
        mean 0 and variance 1, its norm starts as the identity and never whitens anything.
group   Group norm, within each sample (or row): no batch statistics at all, so exact under any
        split and under gradient-cached accumulation. Another function than batch norm: weights
        pretrained with one load (scale and shift), but want retraining.
"""
