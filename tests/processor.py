"""The processor that runs the tests: bounds on rounding were measured on one with AVX-512."""

from __future__ import annotations

import torch


def bound(with_avx512: float, *, elsewhere: float) -> float:
    """How far numbers may lie apart here; `elsewhere` was measured with AVX2."""
    return with_avx512 if torch.backends.cpu.get_cpu_capability() == "AVX512" else elsewhere
