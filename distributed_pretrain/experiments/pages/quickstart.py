"""The page that ends the quickstart: what training changed, in one file that needs no other."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from data_shards.files.atomic import write_text_atomically
from distributed_pretrain.experiments.pages.charts import Curve, line_chart

__all__ = ["Curve", "Grounding", "QuickstartPage", "Retrieval", "format_table", "write_page"]

HEAT_COLOURS = "inferno"
# The strongest heat lets some of the X-ray through, the weakest nearly all.
HEAT_OPACITY = (0.1, 0.75)


@dataclass(frozen=True)
class Retrieval:
    """A held-out X-ray (grey, height x width) with its report and the reports found for it.

    `retrieved` holds the nearest first: text, and whether it equals the own report.
    """

    image: NDArray[np.uint8]
    own_report: str
    retrieved: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Grounding:
    """Where a phrase is on an X-ray (grey, height x width), and where the encoders see it.

    `boxes` are (x, y, width, height) in pixels of `image`; the heats have its size and any range,
    for each is shown on a scale of its own.
    """

    image: NDArray[np.uint8]
    boxes: tuple[tuple[float, float, float, float], ...]
    phrase: str
    untrained_heat: NDArray[np.float32]
    trained_heat: NDArray[np.float32]
    untrained_cnr: float
    trained_cnr: float


@dataclass(frozen=True)
class QuickstartPage:
    """Everything the page tells.

    `loss_curves` of one term share a chart, and so do all `recall_curves` (fractions).
    `untrained` and `trained` hold `recall_at_1`, `recall_at_5`, `linear_dice` (fractions) and
    `grounding_cnr`. `facts` say how it was made: command, hardware, wall time, seed.
    """

    untrained: Mapping[str, float]
    trained: Mapping[str, float]
    loss_curves: tuple[Curve, ...]
    recall_curves: tuple[Curve, ...]
    retrievals: tuple[Retrieval, ...]
    groundings: tuple[Grounding, ...]
    facts: Mapping[str, str]
    run_folder: str
    tensorboard_command: str


@dataclass(frozen=True)
class _Measure:
    key: str
    name: str
    meaning: str
    percent: bool


_MEASURES = (
    _Measure("recall_at_1", "R@1", "the nearest is right, mean of both directions", percent=True),
    _Measure("recall_at_5", "R@5", "one of the nearest five is right", percent=True),
    _Measure("grounding_cnr", "Grounding CNR", "contrast of a phrase's heat to its box", False),
    _Measure("linear_dice", "Linear Dice", "findings outlined by a linear layer", percent=True),
)


def write_page(path: Path, page: QuickstartPage) -> None:
    """Write `page` as one HTML file: style, charts and pictures inside, nothing fetched.

    The file appears whole or not at all. Raises KeyError when a figure is missing.
    """
    environment = Environment(
        loader=PackageLoader("distributed_pretrain.experiments", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["typeset"] = _typeset
    html = environment.get_template("quickstart.html.jinja").render(
        page=page,
        rows=_rows(page.untrained, page.trained),
        charts=_charts(page),
        grey=_grey_picture,
        heat=_heat_picture,
    )
    write_text_atomically(path, html)


def format_table(untrained: Mapping[str, float], trained: Mapping[str, float]) -> str:
    """The comparison as plain text for a terminal; recalls and Dice in per cent."""
    lines = [f"{'':<16}{'untrained':>12}{'trained':>12}{'change':>12}"]
    for row in _rows(untrained, trained):
        lines.append(f"{row.name:<16}{row.untrained:>12}{row.trained:>12}{row.change:>12}")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Row:
    name: str
    meaning: str
    untrained: str
    trained: str
    change: str


def _rows(untrained: Mapping[str, float], trained: Mapping[str, float]) -> list[_Row]:
    rows = []
    for measure in _MEASURES:
        before, after = untrained[measure.key], trained[measure.key]
        scale, unit, digits = (100, " %", 1) if measure.percent else (1, "", 2)
        rows.append(
            _Row(
                measure.name,
                measure.meaning,
                f"{scale * before:.{digits}f}{unit}",
                f"{scale * after:.{digits}f}{unit}",
                f"{scale * (after - before):+.{digits}f}",
            )
        )
    return rows


@dataclass(frozen=True)
class _Chart:
    title: str
    labels: tuple[str, ...]
    svg: Markup


def _charts(page: QuickstartPage) -> list[_Chart]:
    """One chart per loss term, in the order of first mention, and one of all recalls."""
    terms: dict[str, list[Curve]] = {}
    for curve in page.loss_curves:
        terms.setdefault(curve.metric, []).append(curve)
    charts = [_chart(term.replace("_", " "), group) for term, group in terms.items()]
    if page.recall_curves:
        charts.append(_chart("recall", page.recall_curves, percent=True))
    return charts


def _chart(title: str, curves: Sequence[Curve], *, percent: bool = False) -> _Chart:
    labels = tuple(curve.label for curve in curves)
    svg = line_chart(curves, label=f"{title} over steps: {', '.join(labels)}", percent=percent)
    return _Chart(title, labels, Markup(svg))  # ElementTree has escaped every text in it


def _typeset(number: str) -> str:
    """A number with a real minus sign instead of a hyphen."""
    return number.replace("-", "\N{MINUS SIGN}")


def _grey_picture(image: NDArray[np.uint8]) -> str:
    return _data_url(image)


def _heat_picture(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> str:
    """`heat` over `image`, stretched from its lowest to its highest value."""
    assert heat.shape == image.shape, (heat.shape, image.shape)
    span = float(heat.max() - heat.min())
    strength = (heat - heat.min()) / span if span > 0 else np.zeros_like(heat)
    colours = matplotlib.colormaps[HEAT_COLOURS](strength)[..., :3]
    low, high = HEAT_OPACITY
    opacity = (low + (high - low) * strength)[..., None]
    blended = (1 - opacity) * image[..., None] + opacity * 255 * colours
    return _data_url(blended.round().astype(np.uint8))


def _data_url(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
