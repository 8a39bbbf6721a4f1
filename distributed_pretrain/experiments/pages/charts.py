"""Line charts as inline SVG, coloured by the page's style sheet: dark mode reaches them too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 34
# A curve with few points, such as a validation's, shows each of them.
MOST_POINTS_MARKED = 40


@dataclass(frozen=True)
class Curve:
    """Values over steps. `name` is `<metric> (<split>)`, or a metric alone.

    Values that are not finite are left out of charts.
    """

    name: str
    steps: Sequence[int]
    values: Sequence[float]

    @property
    def metric(self) -> str:
        """What the curve shows: its name up to the split."""
        return self.name.partition(" (")[0]

    @property
    def label(self) -> str:
        """The split, or the whole name where it tells none."""
        return self.name.partition(" (")[2].removesuffix(")") or self.name


def line_chart(curves: Sequence[Curve], *, label: str, percent: bool = False) -> str:
    """An `<svg>` element with axes, grid lines and one line per curve.

    The n-th curve has the class `series-n`; hovering over a point tells its step and value.
    `percent` prints fractions in per cent on an axis that begins at 0. `label` is what a screen
    reader says. Curves without a finite value give an empty plane.
    """
    points = [_finite_points(curve) for curve in curves]
    everything = [point for each in points for point in each]
    steps = [step for step, _ in everything] or [0]
    values = [value for _, value in everything] or [0.0]
    x_ticks = _ticks(0, max(*steps, 1), integer=True)
    y_ticks = _ticks(0.0 if percent else min(values), max(values), integer=False)
    plane = _Plane(x_ticks[0], max(x_ticks[-1], *steps), y_ticks[0], y_ticks[-1])

    svg = ElementTree.Element(
        "svg", {"class": "chart", "viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img"}
    )
    svg.set("aria-label", label)
    _draw_axes(svg, plane, x_ticks, y_ticks, percent)
    for number, (curve, each) in enumerate(zip(curves, points, strict=True), start=1):
        _draw_curve(svg, plane, curve, each, f"series-{number}", percent)
    return ElementTree.tostring(svg, encoding="unicode")


def format_value(value: float, *, percent: bool) -> str:
    """A fraction in per cent with one digit, or any number with three significant ones."""
    return f"{100 * value:.1f} %" if percent else f"{value:.3g}"


@dataclass(frozen=True)
class _Plane:
    """Where values lie in the drawing."""

    first_step: float
    last_step: float
    lowest: float
    highest: float

    def x(self, step: float) -> float:
        share = (step - self.first_step) / (self.last_step - self.first_step)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 2)

    def y(self, value: float) -> float:
        share = (value - self.lowest) / (self.highest - self.lowest)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 2)


def _draw_axes(
    svg: ElementTree.Element,
    plane: _Plane,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    percent: bool,
) -> None:
    for value in y_ticks:
        height = plane.y(value)
        line = {"x1": LEFT, "x2": WIDTH - RIGHT, "y1": height, "y2": height}
        _add(svg, "line", "grid", **line)
        text = f"{100 * value:g}%" if percent else f"{value:g}"
        _add(svg, "text", "tick end", x=LEFT - 6, y=height + 4).text = text
    for step in x_ticks:
        place = {"x": plane.x(step), "y": HEIGHT - BOTTOM + 15}
        _add(svg, "text", "tick middle", **place).text = f"{step:g}"
    middle = (LEFT + WIDTH - RIGHT) / 2
    _add(svg, "text", "tick middle", x=middle, y=HEIGHT - 3).text = "step"


def _draw_curve(
    svg: ElementTree.Element,
    plane: _Plane,
    curve: Curve,
    points: Sequence[tuple[int, float]],
    series: str,
    percent: bool,
) -> None:
    corners = " ".join(f"{plane.x(step)},{plane.y(value)}" for step, value in points)
    _add(svg, "polyline", f"line {series}", points=corners)
    marked = len(points) <= MOST_POINTS_MARKED
    for step, value in points:
        kind = "point" if marked else "target"
        circle = _add(svg, "circle", f"{kind} {series}", cx=plane.x(step), cy=plane.y(value), r=2.4)
        where = f"{curve.label}, step {step}"
        ElementTree.SubElement(
            circle, "title"
        ).text = f"{where}: {format_value(value, percent=percent)}"


def _add(
    parent: ElementTree.Element, tag: str, css_class: str, **attributes: float | str
) -> ElementTree.Element:
    values = {name: str(value) for name, value in attributes.items()}
    return ElementTree.SubElement(parent, tag, {"class": css_class, **values})


def _finite_points(curve: Curve) -> list[tuple[int, float]]:
    both = zip(curve.steps, curve.values, strict=True)
    return [(step, value) for step, value in both if math.isfinite(value)]


def _ticks(low: float, high: float, *, integer: bool) -> list[float]:
    """Round values from at most `low` to at least `high`; two at least."""
    if high <= low:
        high = low + max(abs(low), 1.0) / 10
    locator = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10], integer=integer)
    ticks = [round(float(tick), 10) for tick in locator.tick_values(low, high)]
    # For steps the axis ends with the run, not with the next round number.
    return [tick for tick in ticks if tick <= high] if integer else ticks
