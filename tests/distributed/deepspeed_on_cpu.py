"""DeepSpeed on gloo ranks of a CPU, which Accelerate leaves out; every other part is the product's.

As a command: `torchrun --nproc-per-node 2 -m tests.distributed.deepspeed_on_cpu pretrain ...`
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType


def allow_cpu_ranks() -> None:
    """Make Accelerate answer on a CPU as it does on GPUs, with gloo; before DeepSpeed's import."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    # Would have Accelerate start torch's group itself, without DeepSpeed.
    os.environ.pop("ACCELERATE_USE_CPU", None)

    def prepare_backend(*_: object, **__: object) -> tuple[str, DistributedType]:
        return "gloo", DistributedType.DEEPSPEED

    def set_device(state: PartialState) -> None:
        state.device = torch.device("cpu")

    PartialState._prepare_backend = prepare_backend
    PartialState.set_device = set_device
    _compile_nothing()


def _compile_nothing() -> None:
    """Ranks of one CPU could share memory by a kernel that is compiled first; no GPU uses it."""
    from deepspeed.ops import __compatible_ops__ as may_compile

    may_compile["deepspeed_shm_comm"] = False


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m distributed_pretrain ARGUMENTS`, with the faults that FAULTS asks for."""
    allow_cpu_ranks()
    from distributed_pretrain.__main__ import main as run
    from tests.distributed.faults import inject

    inject(json.loads(os.environ.get("FAULTS", "{}")))
    return run(arguments)


def run_command(arguments: list[str]) -> None:
    """`main` as what a rank does: its status becomes the rank's."""
    sys.exit(main(arguments))


if __name__ == "__main__":
    sys.exit(main())
