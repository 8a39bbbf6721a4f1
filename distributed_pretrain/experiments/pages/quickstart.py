"""The page that ends the quickstart: what training changed, in one file that needs no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from markupsafe import Markup
from numpy import ndarray

from data_shards.files.atomic import write_text_atomically
from distributed_pretrain.experiments.pages.charts import Chart
from distributed_pretrain.experiments.tables import text_table
from distributed_pretrain.measures.grounding_metrics import (
    CNR_GAIN,
    FOCAL_POINTING,
    POINTING,
    of_map,
)
from distributed_pretrain.measures.linear_dice import LINEAR_DICE
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.measures.pictures import data_url, heat_on_its_own_scale
from distributed_pretrain.measures.retrieval import RECALL_AT_1, RECALL_AT_5
from distributed_pretrain.pages.html import render

# What the page compares, each with its meaning.
MEANINGS = {
    RECALL_AT_1: "the nearest is right, mean of both directions",
    RECALL_AT_5: "one of the nearest five is right",
    POINTING: "a phrase is hottest inside its box",
    FOCAL_POINTING: "the same, of findings that may lie anywhere in a lung",
    CNR_GAIN: "contrast of the box to the rest, above that for another finding's phrase",
    LINEAR_DICE: "findings outlined by a linear layer",
}
# What maps reach that see no image, and know where findings of the category, and of the category at
# the place that the phrase names, lay in training.
_CATEGORY, _PLACE = of_map("blind_category"), of_map("blind_place")
BLIND = {
    POINTING: (_CATEGORY[0], _PLACE[0]),
    FOCAL_POINTING: (_CATEGORY[1], _PLACE[1]),
}


@dataclass(frozen=True)
class Retrieval:
    """A held-out X-ray, in [0, 1], with its report and the reports found for it.

    `retrieved` holds the nearest first: text, and whether it equals the own report.
    """

    image: Float[ndarray, "height width"]
    own_report: str
    retrieved: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Grounding:
    """Where a phrase is on an X-ray, in [0, 1], where the encoder sees it, and where another.

    `boxes` are (x, y, width, height) in pixels of `image`, of `phrase`; `hit` says whether its heat
    is strongest in them. Heats have any range: each is shown on a scale of its own.
    """

    image: Float[ndarray, "height width"]
    boxes: tuple[tuple[float, float, float, float], ...]
    phrase: str
    heat: Float[ndarray, "rows columns"]
    hit: bool
    other_phrase: str
    other_heat: Float[ndarray, "rows columns"]


@dataclass(frozen=True)
class QuickstartPage:
    """Everything the page tells; `untrained` and `trained` hold metrics of `MEANINGS` by name.

    What only one of them has is not shown. `blind` holds the figures of both blind maps by the
    names of what they stand beside. `facts` say how it was made: command, hardware, wall time,
    seed.
    """

    untrained: Mapping[str, float]
    trained: Mapping[str, float]
    blind: Mapping[str, tuple[float, ...]]
    charts: Sequence[Chart]
    retrievals: Sequence[Retrieval]
    groundings: Sequence[Grounding]
    facts: Mapping[str, str]
    run_folder: str
    tensorboard_command: str


def write_page(path: Path, page: QuickstartPage) -> None:
    """Write `page` as one HTML file: style, charts and pictures inside, nothing fetched.

    The file appears whole or not at all.
    """
    html = render(
        "quickstart.html.jinja",
        page=page,
        rows=zip(_rows(page), (MEANINGS[each] for each in _shown(page)), strict=True),
        # matplotlib has escaped every text in it.
        svg=lambda chart: Markup(chart.svg()),
        grey=lambda image: data_url(np.asarray((255 * image).round(), np.uint8)),
        heat=lambda image, heat: data_url(heat_on_its_own_scale(image, heat)),
    )
    write_text_atomically(path, html)


def format_table(page: QuickstartPage) -> str:
    """The comparison as plain text for a terminal; fractions in per cent."""
    return text_table([["", "blind maps", "untrained", "trained", "change"], *_rows(page)])


def _rows(page: QuickstartPage) -> list[list[str]]:
    rows = []
    for metric in _shown(page):
        before, after = page.untrained[metric.name], page.trained[metric.name]
        blind = page.blind.get(metric.name, ())
        change = f"{metric.scale * (after - before):+.{metric.digits}f}"
        name = metric.title[0].upper() + metric.title[1:]
        shown = "; ".join(map(metric.show, blind))
        rows.append([name, shown, metric.show(before), metric.show(after), change])
    return rows


def _shown(page: QuickstartPage) -> list[Metric]:
    return [each for each in MEANINGS if each.name in page.untrained.keys() & page.trained.keys()]
