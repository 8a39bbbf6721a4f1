"""The batch without padding that is counted and timed."""

from __future__ import annotations

from functools import partial

import torch

from distributed_pretrain.pretrain.full_batch import full_batch

full = partial(full_batch, torch.device("cpu"), rows=2, image_size_px=64, tokens=16)


def test_every_token_between_the_first_and_the_last_is_a_word() -> None:
    assert full().report.word_index[0].tolist() == [-1, *range(14), -1]


def test_only_what_is_asked_for_is_there() -> None:
    plain = full()
    assert (plain.lateral, plain.second_view, plain.labels) == (None, None, None)


def test_every_study_has_a_lateral() -> None:
    both = full(views="frontal_lateral")
    assert both.lateral is not None
    assert both.lateral.images.shape == both.images.shape
    assert both.lateral.mask.all()


def test_two_views_and_labels_have_their_shapes() -> None:
    twice = full(views="two_augmentations", classes=3)
    assert twice.second_view is not None
    assert twice.second_view.images.shape == twice.images.shape
    assert twice.second_view.view_to_image.shape == (2, 2, 2, 3)
    assert twice.labels is not None
    assert twice.labels.shape == (2, 3)
