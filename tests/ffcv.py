"""What the tests of betons stand on: FFCV, where it is installed, or must be."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

import pytest

_REASON = "FFCV is not installed: pip install 'radalign[ffcv]', see pyproject.toml"


def needs_ffcv(test: Callable[..., None]) -> Callable[..., None]:
    """Skips the test where FFCV is not installed, and fails it there if REQUIRE_FFCV=1.

    One worker runs all: FFCV's import takes seconds.
    """
    if importlib.util.find_spec("ffcv") is None and os.environ.get("REQUIRE_FFCV") != "1":
        test = pytest.mark.skip(_REASON)(test)
    grouped: Callable[..., None] = pytest.mark.xdist_group("ffcv")(test)
    return grouped
