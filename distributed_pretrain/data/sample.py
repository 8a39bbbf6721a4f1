"""Studies made ready on the host: read, views decoded and cut, sentences chosen."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from data_shards.records.policies import select_sentences
from data_shards.records.study import ImageRecord, StudyRecord
from distributed_pretrain.data.augmentation_parameters import (
    AugmentationDraw,
    SampleDraws,
    Stream,
    Window,
    square_window,
)
from distributed_pretrain.data.masks_and_boxes import Drawn, read_drawn
from distributed_pretrain.data.quarantine import BadSampleError
from distributed_pretrain.data.settings import AugmentationConfig, DataConfig
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.stored_images import decode_stored


@dataclass(frozen=True)
class LoadedView:
    """A window of a stored image and, in `pixels`, what lies of the image inside it.

    The image has `width` x `height` pixels. `draw` is None for a view that is only resized.
    """

    pixels: NDArray[np.uint8]
    window: Window
    draw: AugmentationDraw | None
    width: int
    height: int

    @classmethod
    def cut(cls, image: NDArray[np.uint8], window: Window, draw: AugmentationDraw | None) -> Self:
        """The view of `image` (H, W) through `window`."""
        rows = slice(max(0, window.top), max(0, window.top + window.height))
        columns = slice(max(0, window.left), max(0, window.left + window.width))
        height, width = image.shape
        return cls(image[rows, columns], window, draw, width, height)

    def paste_into(self, canvas: NDArray[np.uint8]) -> None:
        """Put the window in the upper left corner of `canvas` (H, W), which is zero."""
        height, width = self.pixels.shape
        top, left = max(0, -self.window.top), max(0, -self.window.left)
        canvas[top : top + height, left : left + width] = self.pixels

    def to_image(self) -> NDArray[np.float64]:
        """The affine map (2, 3) from the augmented view to the image's padded square.

        Positions are (x, y) in [0, 1] on both sides, see `SecondView.view_to_image`.
        """
        window, square = self.window, square_window(self.width, self.height)
        across = [window.width, 0, window.left - square.left]
        down = [0, window.height, window.top - square.top]
        in_window = np.array([across, down]) / float(square.width)
        if self.draw is None:
            return in_window
        unwarped = self.draw.unwarped()
        linear = in_window[:, :2] @ unwarped[:, :2]
        shift = in_window[:, :2] @ unwarped[:, 2:] + in_window[:, 2:]
        return np.concatenate([linear, shift], axis=1)


@dataclass(frozen=True)
class LoadedSample:
    """A sample in host memory: views that were asked for and are there, and sentences.

    It is not `real` where it only fills up a batch, and `replaced` where it stands in for another.
    """

    record: StudyRecord
    sentences: tuple[str, ...]
    frontal: LoadedView
    lateral: LoadedView | None = None
    second_view: LoadedView | None = None
    drawn: Drawn | None = None
    real: bool = True
    replaced: bool = False


def load_samples(
    split: ShardSplit,
    config: DataConfig,
    positions: Sequence[int],
    *,
    seed: int = 0,
    epoch: int | None = None,
) -> list[LoadedSample | BadSampleError]:
    """The studies at `positions` as training sees them in `epoch`, or as evaluation does (None).

    What training draws is a function of (seed, epoch, position); a lateral image is flipped as the
    frontal one. A study that cannot be read, or of which a shown image cannot, is its error.

    Each step is done for all before the next, while its code is in the processor's caches.
    """
    draws = {
        stream: SampleDraws.of_all(seed=seed, epoch=epoch or 0, positions=positions, stream=stream)
        for stream in _streams(config, training=epoch is not None)
    }
    loaded: dict[int, LoadedSample | BadSampleError] = {}
    under_way = {
        row: _steps(split, config, position, {name: of[row] for name, of in draws.items()})
        for row, position in enumerate(positions)
    }
    while under_way:
        for row, steps in list(under_way.items()):
            try:
                next(steps)
                continue
            except StopIteration as done:
                loaded[row] = done.value
            except BadSampleError as error:
                loaded[row] = error
            del under_way[row]
    return [loaded[row] for row in range(len(positions))]


def _streams(config: DataConfig, *, training: bool) -> Iterator[Stream]:
    """What is drawn of a sample. Evaluation draws a second view only, without which is no loss."""
    if training:
        yield "frontal"
        if config.views == "frontal_lateral":
            yield "lateral"
        if config.sentences == "one":
            yield "sentence"
    if config.views == "two_augmentations":
        yield "second_view"


def _steps(
    split: ShardSplit, config: DataConfig, position: int, drawn_of: Mapping[Stream, SampleDraws]
) -> Generator[None, None, LoadedSample]:
    """One sample: its record; the bytes of its images; pixels; the rest."""
    record, augmentation = split.read(position), config.augmentation
    frontals, laterals = record.frontal_images(), record.lateral_images()
    if not frontals:
        raise split.bad_sample(position, "the record has no frontal image")
    yield
    draws, side = drawn_of.get("frontal"), None
    shown = [_chosen(frontals, draws, config)]
    if config.views == "frontal_lateral" and laterals:
        side = drawn_of.get("lateral")
        shown.append(_chosen(laterals, side, config))
    entries = [record.images[each] for each in shown]
    payloads = [split.view_member(position, entry.member) for entry in entries]
    yield
    images = [
        _decode(split, position, entry, payload)
        for entry, payload in zip(entries, payloads, strict=True)
    ]
    yield
    frontal = _view(images[0], augmentation, draws)
    lateral = second_view = None
    if len(images) > 1:
        lateral = _view(images[1], augmentation, side, flipped_as=frontal.draw)
    if config.views == "two_augmentations":
        second_view = _view(images[0], augmentation, drawn_of["second_view"])
    drawn = None
    if config.draws:
        try:
            drawn = read_drawn(record, config, partial(split.read_member, position))
        except BadSampleError:
            raise
        except ValueError as error:
            raise split.bad_sample(position, str(error)) from error
    sentences = select_sentences(record.report, config.text_policy)
    if one := drawn_of.get("sentence"):
        sentences = (one.choose(sentences),)
    elif config.sentence_swaps and draws:
        sentences = draws.swap_sentences(sentences, config.sentence_swap_probability)
    return LoadedSample(record, sentences, frontal, lateral, second_view, drawn)


def _chosen(images: Sequence[int], draws: SampleDraws | None, config: DataConfig) -> int:
    return draws.choose(images) if draws and not config.draws else images[0]


def _view(
    image: NDArray[np.uint8],
    config: AugmentationConfig,
    draws: SampleDraws | None,
    *,
    flipped_as: AugmentationDraw | None = None,
) -> LoadedView:
    """The image with its augmentation drawn, if there is any, or only to be resized."""
    height, width = image.shape
    if draws is None or not config.enabled:
        window = square_window(width, height, fraction=config.evaluation_crop_fraction)
        return LoadedView.cut(image, window, None)
    draw = draws.augmentation(config, width=width, height=height)
    if flipped_as is not None:
        draw = replace(draw, flip=flipped_as.flip)
    return LoadedView.cut(image, draw.window, draw)


def _decode(
    split: ShardSplit, position: int, entry: ImageRecord, payload: memoryview
) -> NDArray[np.uint8]:
    try:
        decoded = decode_stored(payload, width=entry.width, height=entry.height)
    except ValueError as error:
        reason = f"{entry.member} cannot be decoded ({error})"
        raise split.bad_sample(position, reason) from error
    pixels: NDArray[np.uint8] = decoded.numpy()
    return pixels
