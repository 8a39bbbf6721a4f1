"""Line integrals through convex solids along parallel X-ray beams, in closed form.

Axes are the patient's, in cm: x to the patient's left, y down, z to the front. A ray meets a
convex solid in one interval, so a world of ellipsoids cut by, emptied by or filled with each
other needs only interval arithmetic: no voxels, exact at any resolution.
"""

# H rows, W columns of the detector

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64
from numpy import ndarray

Vector = Float64[ndarray, "3"]
Matrix = Float64[ndarray, "3 3"]
Plane = Float32[ndarray, "height width"]

BEYOND_THE_BODY_CM = 1e3


class Interval(NamedTuple):
    """Where each ray is inside a convex solid, in cm along the ray; leave <= enter: outside."""

    enter: Plane
    leave: Plane

    def length(self) -> Plane:
        """Path inside, in cm (>= 0)."""
        length: Plane = np.maximum(self.leave - self.enter, np.float32(0))
        return length


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """A solid ellipsoid; the columns of `axes` are the directions of the semi-axes."""

    center: Vector
    semi_axes: Vector
    axes: Matrix

    @cached_property
    def quadric(self) -> Matrix:
        """A of (p - center)' A (p - center) <= 1."""
        quadric: Matrix = (self.axes / self.semi_axes**2) @ self.axes.T
        return quadric


@dataclass(frozen=True, eq=False)
class Slab:
    """The points within `half_thickness` cm of a plane through `point`; `normal` is unit."""

    point: Vector
    normal: Vector
    half_thickness: float


@dataclass(frozen=True, eq=False)
class Rays:
    """Parallel rays, one a pixel: the points column * right + row * down + t * beam.

    `columns_cm` and `rows_cm` are the pixel centres on the detector.
    """

    right: Vector
    down: Vector
    beam: Vector
    columns_cm: Float32[ndarray, " width"]
    rows_cm: Float32[ndarray, " height"]

    @cached_property
    def basis(self) -> Matrix:
        """Patient to detector coordinates: rows right, down, beam."""
        return np.stack([self.right, self.down, self.beam])

    def crop(self, window: tuple[slice, slice]) -> Rays:
        """The rays of a window (rows, columns) only."""
        rows, columns = window
        return Rays(self.right, self.down, self.beam, self.columns_cm[columns], self.rows_cm[rows])

    def window(self, solid: Ellipsoid) -> tuple[slice, slice]:
        """The smallest window of rows and columns holding the shadow of `solid`."""
        # Half the extent of {p' A p <= 1} along a unit vector n is sqrt(n' A^-1 n).
        spread = (solid.axes * solid.semi_axes).T @ self.basis[:2].T
        column_half, row_half = np.sqrt((spread**2).sum(axis=0))
        column, row = self.basis[:2] @ solid.center
        return (
            _covering(self.rows_cm, row - row_half, row + row_half),
            _covering(self.columns_cm, column - column_half, column + column_half),
        )


def ellipsoid(
    center: Sequence[float] | Vector,
    semi_axes: Sequence[float] | Vector,
    *,
    tilt_degrees: float = 0.0,
    pitch_degrees: float = 0.0,
) -> Ellipsoid:
    """An ellipsoid turned by `tilt` in the frontal (x, y) and then `pitch` in the (y, z) plane."""
    tilt, pitch = np.deg2rad(tilt_degrees), np.deg2rad(pitch_degrees)
    in_frontal = np.array(
        [[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1.0]]
    )
    in_sagittal = np.array(
        [[1.0, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    )
    return Ellipsoid(
        np.asarray(center, np.float64), np.asarray(semi_axes, np.float64), in_sagittal @ in_frontal
    )


def rod(start: Vector, end: Vector, radius_cm: float) -> Ellipsoid:
    """A needle-like ellipsoid from `start` to `end`: a vessel, a wire, a clavicle."""
    along = end - start
    length = float(np.linalg.norm(along))
    # A Householder reflection takes the first axis to the rod's direction (up to its sign) and
    # completes the frame; adding with the sign of the first component keeps it stable.
    mirror = along / length
    mirror[0] += np.copysign(1.0, mirror[0])
    axes = np.eye(3) - (2 / (mirror @ mirror)) * mirror[:, None] * mirror
    return Ellipsoid((start + end) / 2, np.array([length / 2, radius_cm, radius_cm]), axes)


def ellipsoid_interval(solid: Ellipsoid, rays: Rays) -> Interval:
    """Where rays are inside an ellipsoid; a miss gives an interval of length zero.

    With A in detector coordinates (u in the plane, t along the beam), the chord of the ray at u
    is centred at t0 = -A_tu u / A_tt and is 2 sqrt((1 - u' S u) / A_tt) long, S being the Schur
    complement A_uu - A_ut A_tu / A_tt.
    """
    quadric = rays.basis @ solid.quadric @ rays.basis.T
    column, row, depth = rays.basis @ solid.center
    across, along_beam = quadric[:2, 2], quadric[2, 2]
    shadow = quadric[:2, :2] - across[:, None] * across / along_beam
    u = (rays.columns_cm - np.float32(column))[None, :]
    v = (rays.rows_cm - np.float32(row))[:, None]
    # Row and column terms are separable; only the product u v needs the whole plane.
    inside = (np.float32(1) - np.float32(shadow[1, 1]) * v * v) - np.float32(shadow[0, 0]) * u * u
    if shadow[0, 1] != 0:
        inside -= (np.float32(2 * shadow[0, 1]) * v) * u
    np.maximum(inside, np.float32(0), out=inside)
    inside *= np.float32(1 / along_beam)
    half_chord = np.sqrt(inside, out=inside)
    slope_u, slope_v = (-across / along_beam).astype(np.float32)
    middle = (np.float32(depth) + slope_v * v) + slope_u * u
    return Interval(middle - half_chord, middle + half_chord)


def slab_interval(slab: Slab, rays: Rays) -> Interval:
    """Where rays are inside a slab; rays along it are inside over all of `BEYOND_THE_BODY_CM`."""
    normal_u, normal_v, normal_t = rays.basis @ slab.normal
    above_plane = (
        np.float32(normal_u) * rays.columns_cm[None, :]
        + np.float32(normal_v) * rays.rows_cm[:, None]
        - np.float32(slab.point @ slab.normal)
    )
    if abs(normal_t) < 1e-6:
        half = np.where(np.abs(above_plane) <= slab.half_thickness, BEYOND_THE_BODY_CM, 0)
        half = half.astype(np.float32)
        return Interval(-half, half)
    middle = above_plane * np.float32(-1 / normal_t)
    half_path = np.float32(slab.half_thickness / abs(normal_t))
    return Interval(middle - half_path, middle + half_path)


def intersection(*intervals: Interval) -> Interval:
    """Where rays are inside all of the solids."""
    enter, leave = intervals[0]
    for other in intervals[1:]:
        enter, leave = np.maximum(enter, other.enter), np.minimum(leave, other.leave)
    return Interval(enter, leave)


def union_length(intervals: Sequence[Interval]) -> Plane:
    """Path in cm inside at least one of the solids: |A u B| = |A| + |B| - |A n B|, recursively."""
    *others, last = intervals
    length = last.length()
    if others:
        length += union_length(others)
        overlaps = [intersection(each, last) for each in others]
        touching = [overlap for overlap in overlaps if (overlap.leave > overlap.enter).any()]
        if touching:
            length -= union_length(touching)
    return length


def length_outside(interval: Interval, solids: Sequence[Interval]) -> Plane:
    """Path in cm inside `interval` and inside none of `solids`."""
    overlaps = [intersection(solid, interval) for solid in solids]
    touching = [overlap for overlap in overlaps if (overlap.leave > overlap.enter).any()]
    length = interval.length()
    return np.maximum(length - union_length(touching), np.float32(0)) if touching else length


def crop_interval(interval: Interval, window: tuple[slice, slice]) -> Interval:
    """The interval on a window of the detector (views, no copy)."""
    return Interval(interval.enter[window], interval.leave[window])


def _covering(positions: Float[ndarray, " n"], low: float, high: float) -> slice:
    first, end = positions.searchsorted((low, high))
    return slice(int(first), int(end))
