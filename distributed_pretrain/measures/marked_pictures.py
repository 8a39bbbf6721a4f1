"""X-rays with what is marked on them, beside what was predicted."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import TABLEAU_COLORS, to_rgb
from matplotlib.patches import Patch, Rectangle
from numpy import ndarray

from distributed_pretrain.measures.pictures import (
    LINE_CHARACTERS,
    LINE_INCHES,
    Picture,
    XRay,
    panels_in_rows,
    pixels_of,
)

COLOURS = tuple(TABLEAU_COLORS.values())
FILL_OPACITY = 0.3
MOST_CAPTION_LINES = 3


@dataclass(frozen=True)
class MarkedBoxes:
    """Boxes (left, top, right, bottom) in pixels, the class of each, and how sure it is."""

    corners: Float[ndarray, "boxes 4"]
    category: Int[ndarray, " boxes"]
    confidence: Float[ndarray, " boxes"] | None = None


Marks: TypeAlias = Bool[ndarray, "classes height width"] | MarkedBoxes


@dataclass(frozen=True)
class Example:
    """An X-ray in [0, 1], what it is an example of, and its true and predicted marks."""

    image: XRay
    caption: str
    truth: Marks
    found: Marks


def examples_picture(examples: Sequence[Example], classes: Sequence[str]) -> Picture:
    """A column an example: its truth above, what was found below; a colour a class."""
    captions_inches = LINE_INCHES * (4 + MOST_CAPTION_LINES)
    columns = len(examples)
    figure, panels = panels_in_rows(2 * columns, columns, captions_inches=captions_inches)
    for each, above, below in zip(examples, panels[:columns], panels[columns:], strict=True):
        for axes, marks in ((above, each.truth), (below, each.found)):
            axes.imshow(each.image, cmap="gray", vmin=0, vmax=1)
            _draw(axes, marks)
        # Names of images are long, and have no blanks.
        lines = textwrap.wrap(
            each.caption, LINE_CHARACTERS, max_lines=MOST_CAPTION_LINES, placeholder="..."
        )
        caption = "\n".join([*lines, "marked"])
        above.set_title(caption, fontsize=7, loc="left", parse_math=False)
        below.set_title("found", fontsize=7, loc="left")
    handles = [
        Patch(color=_colour(number), label=name.replace("$", r"\$"))
        for number, name in enumerate(classes)
    ]
    figure.legend(handles=handles, loc="outside lower left", fontsize=7, ncols=4, frameon=False)
    return pixels_of(figure)


def _draw(axes: Axes, marks: Marks) -> None:
    if isinstance(marks, MarkedBoxes):
        for number, (left, top, right, bottom) in enumerate(marks.corners):
            colour = _colour(int(marks.category[number]))
            size = (right - left, bottom - top)
            axes.add_patch(Rectangle((left, top), *size, fill=False, color=colour, linewidth=1.2))
            if marks.confidence is not None:
                said = f"{marks.confidence[number]:.2f}"
                axes.text(left + 1, top + 1, said, fontsize=6, color=colour, va="top", clip_on=True)
        return
    for number, mask in enumerate(marks):
        if mask.any():
            fill = np.zeros((*mask.shape, 4))
            fill[mask] = (*_colour(number), FILL_OPACITY)
            axes.imshow(fill, interpolation="nearest")
            if not mask.all():
                axes.contour(mask, levels=[0.5], colors=[_colour(number)], linewidths=1)


def _colour(number: int) -> tuple[float, float, float]:
    return to_rgb(COLOURS[number % len(COLOURS)])
