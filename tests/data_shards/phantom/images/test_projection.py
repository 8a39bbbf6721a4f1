"""Closed-form paths through solids against sums over points along each ray."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy import ndarray

from data_shards.phantom.images.drawing import Pose, rays_of
from data_shards.phantom.images.projection import (
    Ellipsoid,
    Rays,
    Slab,
    crop_interval,
    ellipsoid,
    ellipsoid_interval,
    intersection,
    length_outside,
    rod,
    slab_interval,
    union_length,
)

STEP_CM = 0.01
TILTED = ellipsoid((1.0, -2.0, 0.5), (6.0, 3.0, 4.5), tilt_degrees=25, pitch_degrees=-30)
OTHER = ellipsoid((3.0, -1.0, -1.0), (4.0, 5.0, 2.0), tilt_degrees=-40)
THIRD = ellipsoid((-1.0, -3.0, 1.0), (3.0, 3.0, 6.0), pitch_degrees=20)
SLAB = Slab(np.array([0.0, -2.0, 0.0]), np.array([0.0, np.cos(0.4), -np.sin(0.4)]), 0.8)
VIEWS = [rays_of("frontal", 24, Pose(7.0, 0.4, -0.3)), rays_of("lateral", 24, Pose(-5.0))]

Inside = Callable[[ndarray], ndarray]


def inside_ellipsoid(solid: Ellipsoid) -> Inside:
    def inside(points: ndarray) -> ndarray:
        local = (points - solid.center) @ solid.axes / solid.semi_axes
        return np.asarray((local**2).sum(axis=-1) <= 1)

    return inside


def inside_slab(points: ndarray) -> ndarray:
    return np.asarray(np.abs((points - SLAB.point) @ SLAB.normal) <= SLAB.half_thickness)


def summed_path(inside: Inside, rays: Rays) -> ndarray:
    along = np.arange(-12, 12, STEP_CM) + STEP_CM / 2
    path = np.zeros((len(rays.rows_cm), len(rays.columns_cm)))
    for i, row in enumerate(rays.rows_cm):
        for j, column in enumerate(rays.columns_cm):
            start = column * rays.right + row * rays.down
            path[i, j] = STEP_CM * inside(start + along[:, None] * rays.beam).sum()
    return path


@pytest.mark.parametrize("rays", VIEWS, ids=["frontal", "lateral"])
def test_chords_of_a_turned_ellipsoid_are_its_summed_path(rays: Rays) -> None:
    summed = summed_path(inside_ellipsoid(TILTED), rays)
    assert summed.max() > 5
    np.testing.assert_allclose(
        ellipsoid_interval(TILTED, rays).length(), summed, atol=2.5 * STEP_CM
    )


@pytest.mark.parametrize("rays", VIEWS, ids=["frontal", "lateral"])
def test_union_and_difference_are_their_summed_paths(rays: Rays) -> None:
    solids = (TILTED, OTHER, THIRD)
    first, second, third = (ellipsoid_interval(solid, rays) for solid in solids)
    in_1, in_2, in_3 = (inside_ellipsoid(solid) for solid in solids)
    np.testing.assert_allclose(
        union_length([first, second, third]),
        summed_path(lambda p: in_1(p) | in_2(p) | in_3(p), rays),
        atol=6 * STEP_CM,
    )
    np.testing.assert_allclose(
        length_outside(first, [second, third]),
        summed_path(lambda p: in_1(p) & ~in_2(p) & ~in_3(p), rays),
        atol=6 * STEP_CM,
    )


@pytest.mark.parametrize(
    "rays", [*VIEWS, rays_of("lateral", 24)], ids=["frontal", "turned", "along the slab"]
)
def test_a_slice_of_an_ellipsoid_is_its_summed_path(rays: Rays) -> None:
    slice_of_it = intersection(ellipsoid_interval(TILTED, rays), slab_interval(SLAB, rays))
    in_ellipsoid = inside_ellipsoid(TILTED)
    summed = summed_path(lambda p: in_ellipsoid(p) & inside_slab(p), rays)
    assert summed.max() > 1
    np.testing.assert_allclose(slice_of_it.length(), summed, atol=4 * STEP_CM)


def test_a_ray_that_misses_has_no_path() -> None:
    rays = rays_of("frontal", 32)
    sphere = ellipsoid((0, 0, 0), (2, 2, 2))
    far = rays.columns_cm[None, :] ** 2 + rays.rows_cm[:, None] ** 2 > 4.1
    assert (ellipsoid_interval(sphere, rays).length()[far] == 0).all()


def test_the_longest_chord_of_a_sphere_is_its_diameter() -> None:
    rays = rays_of("frontal", 255)
    sphere = ellipsoid((0, 0, 3), (2, 2, 2))
    assert ellipsoid_interval(sphere, rays).length().max() == pytest.approx(4, abs=1e-4)


@pytest.mark.parametrize("solid", [TILTED, OTHER, rod(np.zeros(3), np.array([4.0, 3, 2]), 0.4)])
@pytest.mark.parametrize("rays", VIEWS, ids=["frontal", "lateral"])
def test_a_window_holds_the_whole_shadow_and_little_else(solid: Ellipsoid, rays: Rays) -> None:
    fine = rays_of("frontal", 96) if rays is VIEWS[0] else rays_of("lateral", 96)
    window = fine.window(solid)
    everywhere = ellipsoid_interval(solid, fine)
    shadow = everywhere.length() > 0
    assert shadow[window].sum() == shadow.sum() > 0
    rows, columns = np.flatnonzero(shadow.any(axis=1)), np.flatnonzero(shadow.any(axis=0))
    assert window[0].stop - window[0].start - np.ptp(rows) <= 3
    assert window[1].stop - window[1].start - np.ptp(columns) <= 3
    np.testing.assert_allclose(
        ellipsoid_interval(solid, fine.crop(window)).length(),
        crop_interval(everywhere, window).length(),
        atol=1e-4,
    )


def test_a_rod_reaches_from_one_end_to_the_other_with_orthonormal_axes() -> None:
    for end in ([3.0, 0.0, 0.0], [-3.0, 0.0, 0.0], [0.1, 2.0, -5.0]):
        start = np.array([1.0, 1.0, 1.0])
        needle = rod(start, start + np.array(end), 0.3)
        np.testing.assert_allclose(needle.axes.T @ needle.axes, np.eye(3), atol=1e-12)
        for tip in (start, start + np.array(end)):
            assert (tip - needle.center) @ needle.quadric @ (tip - needle.center) == pytest.approx(
                1
            )
