"""What a method sees, drawn for TensorBoard: each function returns a uint8 array (H, W, 3).

Figures are drawn on an Agg canvas of their own: no pyplot, so no global state, no window and
nothing to close.
"""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Sequence
from typing import TypeAlias

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

XRay: TypeAlias = Float[ndarray, "height width"]
Picture: TypeAlias = UInt8[ndarray, "picture_height picture_width 3"]

DOTS_PER_INCH = 110
PANEL_INCHES = 2.2
# Regions below the strongest fade out, so that the X-ray stays readable under the heat.
STRONGEST_OPACITY = 0.7
HEAT_COLOURS = "inferno"
# Weights that are all zero have no scale of their own.
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
LINE_CHARACTERS = 34
LINE_INCHES = 0.15
MOST_LINES = 6


def similarity_matrix_picture(similarity: Float[ndarray, "batch batch"]) -> Picture:
    """The matrix in colours, images as rows and reports as columns.

    A trained model shows a bright diagonal. Colours span the values present, given in the bar.
    """
    figure = Figure(figsize=(5.2, 4.4), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(similarity, cmap="viridis", interpolation="nearest")
    axes.set_xlabel("report")
    axes.set_ylabel("image")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(shown, ax=axes, label="similarity", shrink=0.9)
    bar.outline.set_visible(False)
    return pixels_of(figure)


def region_weights_picture(
    images: Float[ndarray, "batch height width"], weights: Float[ndarray, "batch rows columns"]
) -> Picture:
    """Each X-ray under the heat of its region weights, all on one scale from 0 to the largest.

    `images` lie in [0, 1]; regions are the cells of a grid over the image.
    """
    assert len(images) == len(weights) > 0, (images.shape, weights.shape)
    columns = min(4, len(images))
    figure, panels = panels_in_rows(len(images), columns, captions_inches=0.1)
    strongest = max(float(weights.max()), SMALLEST_SCALE)
    for axes, image, each in zip(panels, images, weights, strict=True):
        axes.imshow(heat_over(image, each, strongest=strongest))
    scale = ScalarMappable(Normalize(0, strongest), HEAT_COLOURS)
    bar = figure.colorbar(scale, ax=panels, label="region weight", fraction=0.04, aspect=30)
    bar.outline.set_visible(False)
    return pixels_of(figure)


def sentence_maps_picture(
    image: XRay, sentences: Sequence[str], maps: Float[ndarray, "sentences rows columns"]
) -> Picture:
    """The X-ray alone, then once per sentence under the heat of where that sentence belongs.

    Each panel is scaled from its own least to its own greatest value, which are printed: a map of
    nearly one value points nowhere. A report without sentences gives the X-ray alone.
    """
    assert len(sentences) == len(maps), (len(sentences), maps.shape)
    captions = ["X-ray" if sentences else "X-ray\n(a report without sentences)"]
    for sentence, each in zip(sentences, maps, strict=True):
        lines = textwrap.wrap(sentence, LINE_CHARACTERS, max_lines=MOST_LINES, placeholder=" ...")
        captions.append("\n".join([*lines, f"from {each.min():.3g} to {each.max():.3g}"]))
    columns = min(4, len(captions))
    heights = [1 + caption.count("\n") for caption in captions]
    tallest = [max(heights[start : start + columns]) for start in range(0, len(heights), columns)]
    figure, panels = panels_in_rows(
        len(captions), columns, captions_inches=LINE_INCHES * sum(tallest) + 0.1
    )
    panels[0].imshow(image, cmap="gray", vmin=0, vmax=1)
    for axes, each in zip(panels[1:], maps, strict=True):
        axes.imshow(heat_on_its_own_scale(image, each))
    for axes, caption in zip(panels, captions, strict=True):
        # Reports may hold dollar signs, which matplotlib would read as formulas.
        axes.set_title(caption, fontsize=7, loc="left", parse_math=False)
    return pixels_of(figure)


def heat_over(
    image: XRay, cells: Float[ndarray, "rows columns"], *, strongest: float
) -> UInt8[ndarray, "height width 3"]:
    """An X-ray, in [0, 1], under the heat of `cells`, which are stretched over the whole image.

    Heat goes from 0, which shows the X-ray alone, to `strongest`.
    """
    size = (image.shape[1], image.shape[0])
    stretched = Image.fromarray(cells.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    strength = np.clip(np.asarray(stretched) / max(strongest, SMALLEST_SCALE), 0, 1)
    colours = matplotlib.colormaps[HEAT_COLOURS](strength)[..., :3]
    opacity = STRONGEST_OPACITY * strength[..., None]
    blended = (1 - opacity) * np.clip(image, 0, 1)[..., None] + opacity * colours
    return np.asarray((255 * blended).round(), np.uint8)


def heat_on_its_own_scale(
    image: XRay, cells: Float[ndarray, "rows columns"]
) -> UInt8[ndarray, "height width 3"]:
    """An X-ray under the heat of `cells`, from their least value, which shows none, to their most.

    NaN, where nothing is known, shows the X-ray alone.
    """
    low, high = float(np.nanmin(cells)), float(np.nanmax(cells))
    return heat_over(image, np.nan_to_num(cells - low), strongest=high - low)


def panels_in_rows(count: int, columns: int, captions_inches: float) -> tuple[Figure, list[Axes]]:
    """A figure of panels without axes, row by row, with height left for all rows' captions."""
    rows = math.ceil(count / columns)
    size = (columns * PANEL_INCHES + 0.6, rows * PANEL_INCHES + captions_inches)
    # Panels keep the aspect of their image; the plain constrained layout cuts captions off then.
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="compressed")
    panels = [figure.add_subplot(rows, columns, 1 + index) for index in range(count)]
    for axes in panels:
        axes.set_axis_off()
    return figure, panels


def plain_axes(axes: Axes) -> None:
    """Axes without a frame."""
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def pixels_of(figure: Figure) -> Picture:
    """A figure as it is drawn."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def as_png(picture: NDArray[np.uint8]) -> bytes:
    """The bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", optimize=True)
    return file.getvalue()


def data_url(picture: NDArray[np.uint8]) -> str:
    """A picture (height, width) or (height, width, 3) as text, which a page holds in itself."""
    return "data:image/png;base64," + base64.b64encode(as_png(picture)).decode("ascii")


def displayed(
    images: Float[Tensor, "batch channels height width"],
) -> Float[ndarray, "batch height width"]:
    """The first channel of each image, stretched to [0, 1]."""
    pixels = images[:, 0].float()
    low = pixels.amin(dim=(1, 2), keepdim=True)
    high = pixels.amax(dim=(1, 2), keepdim=True)
    return ((pixels - low) / (high - low).clamp_min(1e-6)).cpu().numpy()
