"""X-rays beside their reports, with what a method attends to in either."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy import ndarray

from distributed_pretrain.measures.pictures import (
    DOTS_PER_INCH,
    PANEL_INCHES,
    SMALLEST_SCALE,
    Picture,
    XRay,
    heat_on_its_own_scale,
    pixels_of,
)

LINE_CHARACTERS = 62
TEXT_INCHES = 4.6
MARGIN_INCHES = 0.12
# The width of a character of the monospaced font, in its height.
_CHARACTER_EM = 0.602
_LINE_EM = 1.55
_POINTS = TEXT_INCHES * 72 / (LINE_CHARACTERS * _CHARACTER_EM)
_LINE_INCHES = _LINE_EM * _POINTS / 72
HIGHLIGHT = "tab:orange"
HIGHLIGHT_OPACITY = 0.75


@dataclass(frozen=True)
class WeightedReport:
    """An X-ray in [0, 1] with the weights of its regions, and a report with those of its parts.

    `weights` is one for each of `parts`, which begin a line each (`as_lines`: sentences) or follow
    each other (words). None: the method has none.
    """

    image: XRay
    region_weights: Float[ndarray, "rows columns"] | None
    parts: Sequence[str]
    weights: Sequence[float] | None
    as_lines: bool


@dataclass(frozen=True)
class _Placed:
    line: int
    column: int
    text: str
    strength: float


def weighted_reports_picture(reports: Sequence[WeightedReport]) -> Picture:
    """A row each: the X-ray, again under the heat of its weights, and the report, its parts marked.

    Heat goes from the least to the greatest weight of that X-ray, marks from 0 to the greatest of
    that report.
    """
    placed = [_placed(each) for each in reports]
    heights = [
        max(PANEL_INCHES, _LINE_INCHES * (1 + each[-1].line if each else 0)) + MARGIN_INCHES
        for each in placed
    ]
    columns = (PANEL_INCHES, PANEL_INCHES, TEXT_INCHES)
    lefts = [MARGIN_INCHES * (1 + n) + sum(columns[:n]) for n in range(len(columns))]
    size = (lefts[-1] + TEXT_INCHES + MARGIN_INCHES, sum(heights) + MARGIN_INCHES)
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH)
    top = size[1] - MARGIN_INCHES

    def panel(left: float, width: float, height: float) -> Axes:
        place = (left / size[0], (top - height) / size[1], width / size[0], height / size[1])
        axes = figure.add_axes(place)
        axes.set_axis_off()
        return axes

    for report, words, height in zip(reports, placed, heights, strict=True):
        axes = panel(lefts[0], PANEL_INCHES, PANEL_INCHES)
        axes.imshow(report.image, cmap="gray", vmin=0, vmax=1)
        if report.region_weights is not None:
            axes = panel(lefts[1], PANEL_INCHES, PANEL_INCHES)
            axes.imshow(heat_on_its_own_scale(report.image, report.region_weights))
        own = height - MARGIN_INCHES
        _write(panel(lefts[2], TEXT_INCHES, own), words, own)
        top -= height
    return pixels_of(figure)


def _placed(report: WeightedReport) -> list[_Placed]:
    """Each part's pieces of text at their line and column."""
    weights = report.weights or [0.0] * len(report.parts)
    most = max([*weights, SMALLEST_SCALE])
    line, column, found = 0, 0, list[_Placed]()
    for part, weight in zip(report.parts, weights, strict=True):
        strength = weight / most
        if report.as_lines:
            said = f"{100 * weight:3.0f} %  " if report.weights is not None else ""
            wrapped = textwrap.wrap(f"{said}{part}", LINE_CHARACTERS, subsequent_indent="       ")
            for text in wrapped:
                found.append(_Placed(line, 0, text, strength))
                line += 1
            continue
        text = part if len(part) <= LINE_CHARACTERS else f"{part[: LINE_CHARACTERS - 3]}..."
        if column + len(text) > LINE_CHARACTERS:
            line, column = line + 1, 0
        found.append(_Placed(line, column, text, strength))
        column += len(text) + 1
    return found


def _write(axes: Axes, words: Sequence[_Placed], height_inches: float) -> None:
    axes.set_xlim(0, LINE_CHARACTERS)
    axes.set_ylim(height_inches / _LINE_INCHES, 0)
    for each in words:
        indent = len(each.text) - len(each.text.lstrip())
        axes.add_patch(
            Rectangle(
                (each.column + indent, each.line + 0.04),
                len(each.text) - indent,
                0.92,
                color=HIGHLIGHT,
                alpha=HIGHLIGHT_OPACITY * each.strength,
                linewidth=0,
            )
        )
        axes.text(
            each.column,
            each.line + 0.5,
            each.text,
            family="monospace",
            fontsize=_POINTS,
            va="center_baseline",
            # Reports may hold dollar signs, which matplotlib would read as formulas.
            parse_math=False,
        )
