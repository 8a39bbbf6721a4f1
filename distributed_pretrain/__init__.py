"""Distributed pre-training of chest X-ray encoders from radiology reports.

`load` gives a run's model to Python; all else is commands, `python -m distributed_pretrain --help`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed_pretrain.handover.load import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # Not before it is asked for: a launcher reads settings of this package without torch.
    if name in __all__:
        from distributed_pretrain.handover import load

        return getattr(load, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
