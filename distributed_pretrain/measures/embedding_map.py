"""The embeddings of a split's images on a plane, by t-SNE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray
from torch import Tensor
from torch.nn.functional import normalize

from distributed_pretrain.batch import Batch
from distributed_pretrain.measures.base import (
    Context,
    FeatureOutputs,
    Measure,
    Picture,
    real_records,
    real_rows,
)
from distributed_pretrain.measures.pictures import DOTS_PER_INCH, PANEL_INCHES, pixels_of
from distributed_pretrain.methods.image_text import ImageTextOutputs
from distributed_pretrain.ranks import gather_objects

STUDIES = 2000
FEWEST = 8
MOST_LABELS = 4
PERPLEXITY = 30.0
# What a study says of a label, with its colour, in the order of drawing.
SAID = {"not said": "#c4c4c4", "absent": "tab:blue", "present": "tab:orange"}


class EmbeddingMap(Measure):
    """Each study a point: its image's embedding, or its mean feature where there is none.

    Once for each of the labels that split the studies most evenly, up to `MOST_LABELS`.
    """

    picture_notes: ClassVar[Mapping[str, str]] = {
        "embedding_map": "Images of one look lie together (t-SNE of unit vectors: neighbours mean "
        "something, distances between groups do not), in the colours of what is known of a label."
    }

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._vectors: list[Tensor] = []
        self._labels: list[Mapping[str, float | None]] = []

    def update(self, batch: Batch, outputs: FeatureOutputs) -> None:
        """Keep the vectors of all ranks, up to `STUDIES`."""
        whole = outputs.feature_map.mean(dim=(2, 3))
        if isinstance(outputs, ImageTextOutputs):
            whole = outputs.images.image
        own = real_rows(whole, batch.sample_mask)
        labels = [record.labels for record in real_records(batch)]
        for vectors, told in gather_objects((own, labels)):
            left = max(0, STUDIES - len(self._labels))
            self._vectors.append(vectors[:left])
            self._labels += told[:left]

    def pictures(self) -> dict[str, Picture]:
        """`embedding_map`, of `FEWEST` studies or more with finite embeddings."""
        if len(self._labels) < FEWEST:
            return {}
        vectors = normalize(torch.cat(self._vectors).double(), dim=1).numpy()
        if not np.isfinite(vectors).all():
            return {}
        points = on_a_plane(vectors, seed=self.context.seed)
        labels = _most_even(self._labels, self.context.labels) or [""]
        size = (len(labels) * (PANEL_INCHES + 0.6), PANEL_INCHES + 1.0)
        figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
        for number, label in enumerate(labels):
            axes = figure.add_subplot(1, len(labels), 1 + number)
            said = np.array([_said(each.get(label)) for each in self._labels])
            for name, colour in SAID.items():
                across, up = points[said == name].T
                axes.scatter(across, up, s=9, color=colour, linewidths=0, label=name)
            axes.set_title(label or f"{len(points)} studies", fontsize=8, loc="left")
            axes.set_xticks([])
            axes.set_yticks([])
        if labels != [""]:
            handles, names = figure.axes[0].get_legend_handles_labels()
            figure.legend(
                handles, names, loc="outside lower left", ncols=3, fontsize=7, frameon=False
            )
        return {"embedding_map": pixels_of(figure)}


def on_a_plane(vectors: Float[ndarray, "studies dim"], *, seed: int) -> Float[ndarray, "studies 2"]:
    """Their t-SNE, which the seed decides; its perplexity is less for few studies."""
    # A second, which only those wait for who ask for the picture.
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    found: ndarray = TSNE(perplexity=perplexity, init="random", random_state=seed).fit_transform(
        vectors
    )
    return found


def _said(value: float | None) -> str:
    return {1.0: "present", 0.0: "absent"}.get(-1.0 if value is None else value, "not said")


def _most_even(studies: Sequence[Mapping[str, float | None]], wanted: Sequence[str]) -> list[str]:
    """The labels of which the rarer answer is most frequent, without those that all answer alike.

    By default of all labels.
    """
    names = wanted or sorted({name for each in studies for name in each})
    rarer = {
        name: min(
            sum(each.get(name) == 1 for each in studies),
            sum(each.get(name) != 1 for each in studies),
        )
        for name in names
    }
    ranked = sorted(rarer, key=lambda name: (-rarer[name], name))
    return [name for name in ranked if rarer[name]][:MOST_LABELS]
