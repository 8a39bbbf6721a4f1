"""Pictures for TensorBoard: real colours at the right places."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from distributed_pretrain.measures.pictures import (
    region_weights_picture,
    sentence_maps_picture,
    similarity_matrix_picture,
)

GRID = (4, 4)
BLACK = np.zeros((32, 32), np.float32)


def _one_region(row: int, column: int) -> NDArray[np.float32]:
    weights = np.zeros(GRID, np.float32)
    weights[row, column] = 1
    return weights[None]


def _check(picture: NDArray[np.uint8]) -> None:
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert picture.std() > 0


def _heat_centre(picture: NDArray[np.uint8], columns: slice) -> tuple[float, float]:
    """Centre (row, column) of the coloured pixels, as shares of the black panel around them."""
    part = picture[:, columns].astype(int)
    panel_rows, panel_columns = np.nonzero(part.sum(axis=2) < 30)
    hot_rows, hot_columns = np.nonzero(part[..., 0] - part[..., 2] > 60)
    top, bottom = panel_rows.min(), panel_rows.max()
    left, right = panel_columns.min(), panel_columns.max()
    return (
        (hot_rows.mean() - top) / (bottom - top),
        (hot_columns.mean() - left) / (right - left),
    )


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_similarities_of_any_batch_can_be_drawn(batch: int) -> None:
    _check(similarity_matrix_picture(np.eye(batch, dtype=np.float32)))


def test_the_first_image_and_report_are_in_the_upper_left_corner() -> None:
    def corner(similarity: NDArray[np.float32]) -> list[int]:
        picture = similarity_matrix_picture(similarity)
        coloured = np.ptp(picture.astype(int), axis=2) > 40
        rows, columns = np.nonzero(coloured)
        pixel: list[int] = picture[rows.min() + 3, columns.min() + 3].tolist()
        return pixel

    first_pair = np.zeros((3, 3), np.float32)
    first_pair[0, 0] = 1
    bright, dark = corner(first_pair), corner(np.eye(3, dtype=np.float32)[::-1])
    assert sum(bright) > 450
    assert sum(dark) < 200


def test_the_heat_of_a_region_lies_where_the_region_does() -> None:
    picture = region_weights_picture(BLACK[None], _one_region(3, 0))
    _check(picture)
    row, column = _heat_centre(picture, slice(0, 2 * picture.shape[1] // 3))
    assert row > 0.75
    assert column < 0.25


def test_region_weights_of_several_images_share_one_scale() -> None:
    strong, weak = _one_region(1, 1), 0.05 * _one_region(1, 1)
    picture = region_weights_picture(np.stack([BLACK] * 2), np.concatenate([strong, weak]))
    red = picture[..., 0].astype(int) - picture[..., 2]
    panel = picture.shape[1] * 2.2 / (2 * 2.2 + 0.6)
    first, second = red[:, : int(panel / 2)], red[:, int(panel / 2) : int(0.9 * panel)]
    assert first.max() > 60
    assert second.max() < 20


def test_weights_that_are_all_zero_can_be_drawn() -> None:
    _check(region_weights_picture(BLACK[None], 0 * _one_region(0, 0)))


@pytest.mark.parametrize("count", [1, 3, 9])
def test_each_sentence_gets_a_panel(count: int) -> None:
    sentences = [f"Sentence {i} is plain text." for i in range(count)]
    maps = np.repeat(_one_region(0, 3), count, axis=0)
    picture = sentence_maps_picture(BLACK, sentences, maps)
    _check(picture)
    # Four panels a row, the X-ray first; panels are black on white.
    black = picture[picture.shape[0] - 40].sum(axis=1) < 30
    in_last_row = np.count_nonzero(np.diff(black.astype(int), prepend=0) == 1)
    assert in_last_row == ((1 + count) % 4 or 4)


def test_a_dollar_sign_in_a_report_begins_no_formula() -> None:
    # Read as a formula, the unknown command is an error.
    _check(sentence_maps_picture(BLACK, ["From $\\unknown$ on."], _one_region(0, 0)))


@pytest.mark.parametrize("lengths", [(80, 1, 1, 1, 1), (1, 80, 1, 80, 1, 1), (80,)])
def test_no_caption_is_cut_off(lengths: tuple[int, ...]) -> None:
    sentences = ["word " * words for words in lengths]
    maps = np.repeat(_one_region(1, 1), len(lengths), axis=0)
    picture = sentence_maps_picture(BLACK, sentences, maps)
    assert (picture[:2] == 255).all()


def test_a_very_long_sentence_is_shortened() -> None:
    long, longer = ("word " * 100, "word " * 5000)
    sizes = [
        sentence_maps_picture(BLACK, [text], _one_region(0, 0)).shape for text in (long, longer)
    ]
    assert sizes[0] == sizes[1]


def test_a_report_without_sentences_shows_the_x_ray_alone() -> None:
    empty = np.zeros((0, *GRID), np.float32)
    _check(sentence_maps_picture(BLACK, [], empty))
