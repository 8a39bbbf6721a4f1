"""Studies made ready on the host: read, views decoded and cut, sentences chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

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
from distributed_pretrain.data.loaded_view import Canvas, LoadedView, empty_canvas
from distributed_pretrain.data.masks_and_boxes import Drawn, read_drawn
from distributed_pretrain.data.quarantine import BadSampleError
from distributed_pretrain.data.settings import AugmentationConfig, DataConfig
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.stored_images import check_size, decode_pixels

Result = TypeVar("Result")


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

    Records are read and all is drawn before the first image is decoded. So the windows are known,
    and each image goes to a canvas of all while it is in the processor's caches; where these are a
    whole batch, that is the batch's.
    """
    streams = _streams(config, training=epoch is not None)
    draws = {
        stream: SampleDraws.of_all(seed=seed, epoch=epoch or 0, positions=positions, stream=stream)
        for stream in streams
    }
    found = [
        _or_bad(_prepared, split, config, position, {name: of[row] for name, of in draws.items()})
        for row, position in enumerate(positions)
    ]
    windows: dict[_Name, list[Window]] = {}
    for each in found:
        if isinstance(each, _Prepared):
            for shown in each.shown:
                windows.setdefault(shown.name, []).append(shown.window)
    places = {name: _places(empty_canvas(those)) for name, those in windows.items()}
    return [
        each if isinstance(each, BadSampleError) else _or_bad(_loaded, split, config, each, places)
        for each in found
    ]


_Name: TypeAlias = Literal["frontal", "lateral", "second_view"]
# Free rows of canvases, one after another, for the views of each name.
_Places: TypeAlias = Mapping[_Name, Iterator[tuple[Canvas, int]]]
_Draws: TypeAlias = Mapping[Stream, SampleDraws]
_Image: TypeAlias = tuple[ImageRecord, memoryview]


class _Shown(NamedTuple):
    """A view of one of a sample's images, by its number, before that is decoded."""

    name: _Name
    image: int
    window: Window
    draw: AugmentationDraw | None


class _Prepared(NamedTuple):
    """A sample whose images are still to be decoded."""

    position: int
    record: StudyRecord
    sentences: tuple[str, ...]
    images: list[_Image]
    shown: list[_Shown]


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


def _places(canvas: Canvas) -> Iterator[tuple[Canvas, int]]:
    return zip(repeat(canvas), range(len(canvas)), strict=False)


def _or_bad(
    step: Callable[..., Result], split: ShardSplit, config: DataConfig, *arguments: Any
) -> Result | BadSampleError:
    """What a step makes of a sample, or why it makes nothing."""
    try:
        return step(split, config, *arguments)
    except BadSampleError as error:
        return error


def _prepared(split: ShardSplit, config: DataConfig, position: int, draws: _Draws) -> _Prepared:
    """One sample: its record; what is drawn; and the bytes of its images."""
    record, augmentation = split.read(position), config.augmentation
    frontals, laterals = record.frontal_images(), record.lateral_images()
    if not frontals:
        raise split.bad_sample(position, "the record has no frontal image")
    frontal = draws.get("frontal")
    images = [_read(split, position, record.images[_chosen(frontals, frontal, config)])]
    shown = [_view("frontal", 0, images, augmentation, frontal)]
    if config.views == "frontal_lateral" and laterals:
        side = draws.get("lateral")
        images.append(_read(split, position, record.images[_chosen(laterals, side, config)]))
        view = _view("lateral", 1, images, augmentation, side)
        if (as_shown := shown[0].draw) is not None and view.draw is not None:
            view = view._replace(draw=replace(view.draw, flip=as_shown.flip))
        shown.append(view)
    if config.views == "two_augmentations":
        shown.append(_view("second_view", 0, images, augmentation, draws["second_view"]))
    sentences = select_sentences(record.report, config.text_policy)
    if "sentence" in draws:
        sentences = (draws["sentence"].choose(sentences),)
    elif config.sentence_swaps and frontal:
        sentences = frontal.swap_sentences(sentences, config.sentence_swap_probability)
    return _Prepared(position, record, sentences, images, shown)


def _loaded(
    split: ShardSplit, config: DataConfig, sample: _Prepared, places: _Places
) -> LoadedSample:
    """The same with its pixels, each view in the next free place."""
    position, record, sentences, images, shown = sample
    pixels = [_decode(split, position, each) for each in images]
    views: dict[_Name, LoadedView] = {}
    for name, image, window, draw in shown:
        height, width = pixels[image].shape
        view = LoadedView(*next(places[name]), window, draw, width, height)
        views[name] = view.filled(pixels[image])
    drawn = None
    if config.draws:
        try:
            drawn = read_drawn(record, config, partial(split.read_member, position))
        except BadSampleError:
            raise
        except ValueError as error:
            raise split.bad_sample(position, str(error)) from error
    lateral, second_view = views.get("lateral"), views.get("second_view")
    return LoadedSample(record, sentences, views["frontal"], lateral, second_view, drawn)


def _chosen(images: Sequence[int], draws: SampleDraws | None, config: DataConfig) -> int:
    return draws.choose(images) if draws and not config.draws else images[0]


def _view(
    name: _Name,
    number: int,
    images: Sequence[_Image],
    config: AugmentationConfig,
    draws: SampleDraws | None,
) -> _Shown:
    """A view with its augmentation drawn, if there is any, or only to be resized."""
    entry, _ = images[number]
    width, height = entry.width, entry.height
    if draws is None or not config.enabled:
        fraction = config.evaluation_crop_fraction
        return _Shown(name, number, square_window(width, height, fraction=fraction), None)
    draw = draws.augmentation(config, width=width, height=height)
    return _Shown(name, number, draw.window, draw)


def _read(split: ShardSplit, position: int, entry: ImageRecord) -> _Image:
    """The bytes of an image, which has the size that its record says."""
    payload = split.view_member(position, entry.member)
    try:
        check_size(payload, width=entry.width, height=entry.height)
    except ValueError as error:
        raise _undecodable(split, position, entry, error) from error
    return entry, payload


def _decode(split: ShardSplit, position: int, image: _Image) -> NDArray[np.uint8]:
    entry, payload = image
    try:
        decoded = decode_pixels(payload)
    except ValueError as error:
        raise _undecodable(split, position, entry, error) from error
    pixels: NDArray[np.uint8] = decoded.numpy()
    return pixels


def _undecodable(
    split: ShardSplit, position: int, entry: ImageRecord, error: ValueError
) -> BadSampleError:
    return split.bad_sample(position, f"{entry.member} cannot be decoded ({error})")
