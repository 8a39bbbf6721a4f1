"""Palettes: a colour that a picture uses has to be in them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from data_shards.images.refusals import damaged

# By numbers in a palette; a grey palette may have become grey levels of the same numbers.
_NUMBERED = {"1", "L", "P", "PA"}


def refuse_missing_colours(decoded: Image.Image, colours: int) -> None:
    """Raise RefusedError where a pixel of `decoded` has a number that `colours` do not reach."""
    if decoded.mode not in _NUMBERED:
        return
    numbers = np.asarray(decoded)
    highest = int((numbers[..., 0] if decoded.mode == "PA" else numbers).max())
    if highest >= colours:
        raise damaged(f"colour {highest} of a palette of {colours}")
