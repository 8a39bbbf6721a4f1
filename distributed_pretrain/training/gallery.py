"""What there is to see of a finished run: PNG files, pictures in TensorBoard, and one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_shards.errors import warn
from data_shards.files.atomic import write_bytes_atomically, write_text_atomically
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.measures.pictures import as_png, data_url
from distributed_pretrain.pages.html import render
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.training.events import EventFile


@dataclass(frozen=True)
class Shown:
    """A picture (height, width, 3), its name in files, and in a sentence what it shows."""

    name: str
    picture: NDArray[np.uint8]
    note: str = ""

    @property
    def title(self) -> str:
        """The name in words."""
        return self.name.replace("_", " ")

    @property
    def url(self) -> str:
        """The picture as text, for a page."""
        return data_url(self.picture)


def write_page(
    path: Path,
    title: str,
    lead: str,
    figures: Mapping[str, float],
    metrics: Mapping[str, Metric],
    shown: Sequence[Shown],
) -> None:
    """Write one HTML file with its pictures inside, and those of the figures that are `metrics`."""
    rows = [
        [metrics[name].title, metrics[name].show(value)]
        for name, value in figures.items()
        if name in metrics
    ]
    table = [["figure", "value"], *rows]
    page = render("gallery.html.jinja", title=title, lead=lead, figures=table, shown=shown)
    _written(path, page)


def write_pictures(run: RunFolder, folder: Path, shown: Sequence[Shown]) -> None:
    """Write each into `folder`, and for TensorBoard, under its name where it is not the run's."""
    if not shown:
        return
    tag = "pictures" if folder == run.path else f"pictures/{folder.name}"
    for each in shown:
        _written(folder / f"{each.name}.png", as_png(each.picture))
    progress = run.progress()
    step = 0 if progress is None else progress.step
    events = EventFile(run.tensorboard, purge_step=step + 1)
    for each in shown:
        events.add_picture(step, f"{tag}/{each.name}", each.picture)
    events.close()


def _written(path: Path, content: bytes | str) -> None:
    """Figures of hours of training are not lost for a picture: where it fails is a warning."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            write_bytes_atomically(path, content)
        else:
            write_text_atomically(path, content)
    except OSError as error:
        warn(f"{path}: not written ({error.strerror}): the figures stand without it")
