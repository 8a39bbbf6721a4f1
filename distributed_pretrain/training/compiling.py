"""What `training.compile` compiles: the encoders alone, in few shapes; and how it is checked.

Losses and alignments have reports and sentences of any length, and take little of a step. Encoders
have all the layers, and their shapes are few: reports are padded to one of a list of widths, and
batches of training and of validation have one size each.
"""

from __future__ import annotations

import torch
import torch._dynamo.config
import torch._functorch.config

from data_shards.errors import InputError
from distributed_pretrain.methods.objective import Contrasted, Objective
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.models.report_encoder import ReportEncoder

# Of one function: seven widths in training and in validation, a student, a teacher and a lateral.
_MOST_GRAPHS = 64
# Of the length of a pass's outputs: how far the same numbers in another order may be apart.
_TOLERANCE = {torch.bfloat16: 3e-2, torch.float16: 3e-2, torch.float32: 1e-3, torch.float64: 1e-9}


def compile_encoders(
    objective: Objective, *, walks_by_term: bool, backend: str = "inductor"
) -> None:
    """Compile every encoder within `objective`.

    `walks_by_term`: whether backward goes through a forward more than once. Raises InputError
    without an encoder.
    """
    encoders = [
        module
        for module in objective.modules()
        if isinstance(module, (ImageEncoder, ReportEncoder))
    ]
    if not encoders:
        raise InputError(
            "training.compile=true: no encoder that could be compiled: set it to false"
        )
    # A backward that may overwrite what forward kept could not be walked term by term.
    torch._functorch.config.donated_buffer = not walks_by_term
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, _MOST_GRAPHS)
    for encoder in encoders:
        encoder.compile(backend=backend)


def check_passes(first: Contrasted, second: Contrasted) -> None:
    """Raise InputError unless the two passes of exact accumulation gave the same outputs.

    A compiler may draw dropout otherwise in a forward without gradients; cached gradients would be
    those of another forward.
    """
    for name, tensor in first.rows.items():
        if not tensor.is_floating_point():
            continue
        ours, expected = second.rows[name].detach().double(), tensor.detach().double()
        apart = float((ours - expected).norm() / expected.norm().clamp(min=1e-30))
        if apart > _TOLERANCE[tensor.dtype]:
            raise InputError(
                "training.compile=true: the two passes of exact accumulation differ by "
                f"{apart:.1%} in {name!r}, as if dropout were drawn anew: set "
                "training.compile=false, training.accumulation=plain, or dropout to 0"
            )
