"""Charts for pages, by matplotlib: one look, and line charts as SVG that lies inside the page."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.measures.pictures import plain_axes

SIZE_INCHES = (3.4, 2.1)
# A curve with few points, such as a validation's, shows each of them.
MOST_POINTS_MARKED = 40
ROUND = (1, 2, 2.5, 5, 10)
# Drawn in colours that the page's style sheet then replaces, so that dark mode reaches them too.
MUTED, RULE = "#5c676c", "#dfdcd4"
SERIES = {"#a09a8e": "var(--before)", "#0b6b72": "var(--accent)", "#c0702a": "var(--third)"}
STYLES = {MUTED: "var(--muted)", RULE: "var(--rule)", **SERIES}


@dataclass(frozen=True)
class Curve:
    """Values over steps; those that are not finite are left out."""

    label: str
    steps: Sequence[int]
    values: Sequence[float]

    @property
    def finite(self) -> list[tuple[int, float]]:
        """Its points."""
        points = zip(self.steps, self.values, strict=True)
        return [(step, value) for step, value in points if math.isfinite(value)]


@dataclass(frozen=True)
class Chart:
    """Up to three curves of metrics like `metric`; an axis of fractions is in per cent, from 0."""

    title: str
    metric: Metric
    curves: tuple[Curve, ...]

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Label and last value of each curve."""
        return [
            (each.label, self.metric.show(each.finite[-1][1]) if each.finite else "")
            for each in self.curves
        ]

    def svg(self) -> str:
        """An `<svg>` element, of an empty plane where no value is finite."""
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        plain_axes(axes)
        axes.grid(axis="y", color=RULE, linewidth=0.7, alpha=1, clip_on=False)
        axes.spines["bottom"].set_color(RULE)
        axes.spines["left"].set_visible(False)
        axes.tick_params(colors=MUTED, labelsize=8.5, left=False, bottom=False)
        axes.set_xlabel("step", color=MUTED, fontsize=8.5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=ROUND, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=ROUND))
        # A curve that stands alone is the trained encoder's, as in the table.
        colours = list(SERIES)[len(self.curves) == 1 :]
        for curve, colour in zip(self.curves, colours, strict=False):
            steps, values = [p[0] for p in curve.finite], [p[1] for p in curve.finite]
            marker = "o" if len(steps) <= MOST_POINTS_MARKED else ""
            axes.plot(steps, values, f"{marker}-", color=colour, lw=1.3, ms=3, clip_on=False)
        if self.metric.unit == "fraction":
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
            axes.set_ylim(bottom=0)
        return _inline(figure)


def _inline(figure: Figure) -> str:
    file = io.StringIO()
    # Text stays text, in the page's font.
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    # Inside a page an element says neither its namespaces nor a style for all others.
    text = re.sub(r"<style[^>]*>.*?</style>| xmlns(:\w+)?=\"[^\"]*\"", "", text, flags=re.DOTALL)
    for colour, style in STYLES.items():
        text = text.replace(colour, style)
    return text[text.index("<svg") :].replace("xlink:href", "href")
