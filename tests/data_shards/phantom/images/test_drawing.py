from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from data_shards.phantom.images.anatomy import LUNGS, Lung, draw_anatomy
from data_shards.phantom.images.drawing import VISIBLE_CHANGE, Regions, draw_absorption, rays_of
from data_shards.phantom.images.findings import (
    FOCAL,
    GRADES,
    ZONES,
    Category,
    Finding,
    Grade,
    Side,
    Zone,
    chest_with,
    regrade,
)
from data_shards.phantom.images.projection import Plane, ellipsoid
from data_shards.phantom.images.rendering import Exposure, expose, render_study, tight_box
from data_shards.phantom.study import draw_patient, plan_patients

ANATOMY = draw_anatomy(np.random.default_rng(7))
HEIGHT_PX = 128
FOCAL_IN_ORDER = sorted(FOCAL)


def lesion(side: Side, zone: Zone, grade: Grade = 2) -> Finding:
    return regrade(Finding("Lung Lesion", side, zone, grade, 11, diameter_cm=2.0), grade)


def finding_of(category: Category, side: Side = "right", grade: Grade = 2) -> Finding:
    if category == "Lung Lesion":
        return lesion(side, "mid", grade)
    if category == "Cardiomegaly":
        return Finding(category, None, None, grade, 11)
    if category == "Edema":
        return Finding(category, "bilateral", None, grade, 11)
    return Finding(category, side, "mid" if category in FOCAL else None, grade, 11)


def drawn(*findings: Finding, lateral: bool = False) -> tuple[Plane, list[Regions]]:
    rays = rays_of("lateral" if lateral else "frontal", HEIGHT_PX)
    return draw_absorption(chest_with(ANATOMY, findings), findings, rays)


def mask_of(drawing: tuple[Plane, list[Regions]], lung: Lung | None) -> np.ndarray:
    _, regions = drawing
    return regions[0][lung]


def middle_row(mask: np.ndarray) -> float:
    return float(np.argwhere(mask)[:, 0].mean())


@pytest.mark.parametrize("category", FOCAL_IN_ORDER)
@pytest.mark.parametrize("side", LUNGS)
def test_a_focal_mask_is_where_the_finding_adds_absorption(category: Category, side: Lung) -> None:
    with_it = drawn(finding_of(category, side))
    added = with_it[0] - drawn()[0]
    mask = mask_of(with_it, side)
    # Sums in float32 may fall on either side of the limit.
    clear_cut = np.abs(added - VISIBLE_CHANGE) > 1e-4
    np.testing.assert_array_equal(mask[clear_cut], (added >= VISIBLE_CHANGE)[clear_cut])
    assert mask.sum() > 30


def test_an_effusion_mask_is_where_fluid_replaces_air() -> None:
    with_it = drawn(finding_of("Pleural Effusion"))
    added = with_it[0] - drawn()[0]
    mask = mask_of(with_it, "right")
    # Vessels under the fluid vanish in it: they add less than what the lung would.
    assert (added[mask] > 0).mean() > 0.99
    assert (added[~mask] < VISIBLE_CHANGE + 1e-4).all()
    assert np.corrcoef(added.ravel() > 0.5, mask.ravel())[0, 1] > 0.8


def test_a_pneumothorax_mask_is_where_gas_takes_absorption_away() -> None:
    with_it = drawn(finding_of("Pneumothorax"))
    added = with_it[0] - drawn()[0]
    mask = mask_of(with_it, "right")
    # The pleural line and hidden vessels apart.
    assert (added[mask] < 0).mean() > 0.85
    assert np.median(added[mask]) < -0.15
    assert (added[~mask] > -VISIBLE_CHANGE - 1e-4).mean() > 0.99


def test_cardiomegaly_makes_the_heart_wider_than_half_the_chest() -> None:
    widths = []
    for grade in GRADES:
        finding = finding_of("Cardiomegaly", grade=grade)
        box = tight_box(0, mask_of(drawn(finding), None))
        widths.append(box.width * 34 / HEIGHT_PX / (2 * ANATOMY.half_width))
    assert 0.5 < widths[0] < widths[1] < widths[2] < 0.75


@pytest.mark.parametrize("category", get_args(Category))
def test_a_higher_grade_is_larger(category: Category) -> None:
    areas = []
    for grade in GRADES:
        _, [regions] = drawn(finding_of(category, grade=grade))
        areas.append(sum(int(mask.sum()) for mask in regions.values()))
    assert areas[0] < areas[1] < areas[2]


def test_the_patients_left_is_on_the_right_of_the_image() -> None:
    left, right = drawn(lesion("left", "mid")), drawn(lesion("right", "mid"))
    assert np.argwhere(mask_of(left, "left"))[:, 1].min() > HEIGHT_PX / 2
    assert np.argwhere(mask_of(right, "right"))[:, 1].max() < HEIGHT_PX / 2


def test_zones_lie_one_below_the_other() -> None:
    rows = [middle_row(mask_of(drawn(lesion("right", zone)), "right")) for zone in ZONES]
    assert rows[0] + 10 < rows[1] < rows[2] - 10


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("side", LUNGS)
def test_frontal_and_lateral_show_a_lesion_at_the_same_height(side: Lung, zone: Zone) -> None:
    finding = lesion(side, zone)
    frontal = tight_box(0, mask_of(drawn(finding), side))
    lateral = tight_box(0, mask_of(drawn(finding, lateral=True), side))
    assert abs(frontal.y - lateral.y) <= 1
    assert abs(frontal.height - lateral.height) <= 2


def test_metal_adds_absorption_in_its_place_only() -> None:
    rays = rays_of("frontal", HEIGHT_PX)
    chest = chest_with(ANATOMY, ())
    wire = ellipsoid((5, 5, 0), (1, 1, 0.2))
    added = draw_absorption(chest, (), rays, [wire])[0] - draw_absorption(chest, (), rays)[0]
    rows, columns = rays.window(wire)
    assert added[rows, columns].max() > 0.5
    added[rows, columns] = 0
    assert (added == 0).all()


def test_boxes_are_tight_on_masks_and_inside_the_image() -> None:
    plans = plan_patients(3, {"train": 25, "validate": 0, "test": 0})
    studies = [study for plan in plans for study in draw_patient(3, plan)]
    boxes = 0
    for study in studies:
        rendered = render_study(study, seed=3, height_px=96, noise=1.0)
        covered = {category: np.zeros((96, 96), bool) for category in rendered.masks}
        for box in rendered.boxes:
            category = study.findings[box.finding].category
            rows, columns = slice(box.y, box.y + box.height), slice(box.x, box.x + box.width)
            inside = rendered.masks[category][rows, columns]
            assert inside.shape == (box.height, box.width)
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()
            covered[category][rows, columns] = True
            boxes += 1
        for category, mask in rendered.masks.items():
            assert (mask <= covered[category]).all()
    assert boxes > 20


def test_every_finding_shows_in_its_frontal() -> None:
    plans = plan_patients(4, {"train": 120, "validate": 0, "test": 0})
    for plan in plans:
        for study in draw_patient(4, plan):
            chest = chest_with(study.anatomy, study.findings, study.lung_volume)
            rays = rays_of("frontal", 96, study.pose)
            _, drawn_regions = draw_absorption(chest, study.findings, rays)
            for finding, regions in zip(study.findings, drawn_regions, strict=True):
                assert len(regions) == max(len(finding.lungs), 1)
                assert all(mask.sum() >= 6 for mask in regions.values()), finding


def test_dense_tissue_is_bright_and_noise_grows_with_fewer_photons() -> None:
    line_integrals, _ = drawn()
    pixel_cm = 34 / HEIGHT_PX

    def image(photons: float, seed: int) -> np.ndarray:
        exposure = Exposure(photons, scatter=0.1, equalised=0.5)
        return expose(line_integrals, pixel_cm, exposure, np.random.default_rng(seed))

    plain = image(1e9, 0)
    assert plain.dtype == np.uint8
    assert plain[line_integrals > 4].mean() > plain[line_integrals < 2.5].mean() + 80
    grain = [np.std(image(photons, 1).astype(float) - plain) for photons in (1e6, 1e5, 1e4)]
    assert grain[0] < grain[1] < grain[2]


def test_every_category_is_drawn_in_some_study() -> None:
    plans = plan_patients(5, {"train": 300, "validate": 0, "test": 0})
    seen = {f.category for plan in plans for s in draw_patient(5, plan) for f in s.findings}
    assert seen == set(get_args(Category))
