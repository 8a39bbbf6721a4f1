"""The two forms of LIMITR's pair similarity; needs no torch, so that settings may name them."""

from __future__ import annotations

from typing import Literal, TypeAlias

Variant: TypeAlias = Literal["paper", "authors"]
