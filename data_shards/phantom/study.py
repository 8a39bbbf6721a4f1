"""Patients and their visits: what each study shows, drawn from (seed, patient number) alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal

import numpy as np
from numpy.random import Generator

from data_shards.phantom.images.anatomy import Anatomy, LungVolume, draw_anatomy
from data_shards.phantom.images.devices import Device
from data_shards.phantom.images.drawing import Pose
from data_shards.phantom.images.findings import GRADES, Finding, draw_finding, regrade, slots_of
from data_shards.phantom.settings import WorldConfig
from data_shards.records.study import SPLITS, Split

Change = Literal["first seen", "new", "larger", "smaller", "unchanged"]
Projection = Literal["PA", "AP"]


@dataclass(frozen=True)
class PatientPlan:
    """Who is in which split, with how many studies; `first_study` numbers them over the set."""

    number: int
    split: Split
    first_study: int
    studies: int


@dataclass(frozen=True)
class Study:
    """All a study's images and report tell, before any is drawn or written."""

    patient: int
    number: int
    split: Split
    when: date
    minute_of_day: int
    anatomy: Anatomy
    lung_volume: LungVolume
    projection: Projection
    has_lateral: bool
    pose: Pose
    lateral_pose: Pose
    devices: tuple[Device, ...]
    findings: tuple[Finding, ...]
    changes: tuple[Change, ...]
    resolved: tuple[Finding, ...]

    @property
    def is_first(self) -> bool:
        """Whether there is no earlier study of the patient to compare with."""
        return all(change == "first seen" for change in self.changes) and not self.resolved


def plan_patients(seed: int, studies_by_split: Mapping[Split, int]) -> tuple[PatientPlan, ...]:
    """Patients with one to four studies each that add up to exactly the studies asked for."""
    plans: list[PatientPlan] = []
    first = 0
    for split in SPLITS:
        left = studies_by_split[split]
        while left:
            drawn = np.random.default_rng([seed, len(plans), 0]).choice(4, p=(0.5, 0.25, 0.15, 0.1))
            studies = min(left, 1 + int(drawn))
            plans.append(PatientPlan(len(plans), split, first, studies))
            first += studies
            left -= studies
    return tuple(plans)


def draw_patient(
    seed: int, plan: PatientPlan, world: WorldConfig | None = None
) -> tuple[Study, ...]:
    """The studies of a patient, oldest first: one anatomy, findings that come, change and go."""
    world = world or WorldConfig()
    rng = np.random.default_rng([seed, plan.number, 1])
    anatomy = draw_anatomy(rng)
    kept_devices = tuple(device for device, share in _LASTING_DEVICES if rng.random() < share)
    when = date(2100, 1, 1) + timedelta(days=int(rng.integers(36_500)))
    studies: list[Study] = []
    for visit in range(plan.studies):
        previous = studies[-1].findings if studies else None
        findings, changes, resolved = _findings_after(previous, rng, world)
        projection: Projection = "PA" if rng.random() < 0.6 else "AP"
        portable = projection == "AP"
        volume: LungVolume = _VOLUMES[
            rng.choice(3, p=(0.34, 0.62, 0.04) if portable else (0.1, 0.7, 0.2))
        ]
        studies.append(
            Study(
                patient=plan.number,
                number=plan.first_study + visit,
                split=plan.split,
                when=when,
                minute_of_day=int(rng.integers(24 * 60)),
                anatomy=anatomy,
                lung_volume=volume,
                projection=projection,
                has_lateral=not portable and rng.random() < 0.8,
                pose=_framed(
                    _draw_pose(rng, spread_degrees=3.0 if portable else 1.5),
                    world,
                    np.random.default_rng([seed, plan.first_study + visit, 4]),
                ),
                lateral_pose=_draw_pose(rng, spread_degrees=2.0),
                devices=(*kept_devices, *(_bedside_devices(rng) if portable else ())),
                findings=findings,
                changes=changes,
                resolved=resolved,
            )
        )
        when += timedelta(days=int(rng.integers(1, 200)))
    return tuple(studies)


_VOLUMES: tuple[LungVolume, ...] = ("low", "normal", "high")
_LASTING_DEVICES: tuple[tuple[Device, float], ...] = (("pacemaker", 0.07), ("sternal wires", 0.08))


def _findings_after(
    previous: tuple[Finding, ...] | None, rng: Generator, world: WorldConfig
) -> tuple[tuple[Finding, ...], tuple[Change, ...], tuple[Finding, ...]]:
    """Findings of the next visit, how each changed, and those that are gone."""
    if previous is None:
        fresh = _with_new_findings((), rng.choice(4, p=(0.17, 0.33, 0.32, 0.18)), rng, world)
        first_seen: list[Change] = ["first seen"] * len(fresh)
        return fresh, tuple(first_seen), ()
    kept: list[Finding] = []
    changes: list[Change] = []
    resolved: list[Finding] = []
    for finding in previous:
        fate = rng.random()
        # A large heart and a lesion do not vanish between two visits.
        lasting = finding.category in ("Cardiomegaly", "Lung Lesion")
        if fate < 0.3 and not lasting:
            resolved.append(finding)
            continue
        step = 1 if 0.3 <= fate < 0.5 else -1 if 0.5 <= fate < 0.65 and not lasting else 0
        changed = regrade(finding, GRADES[min(max(finding.grade + step, 1), 3) - 1])
        others = [*kept, *(other for other in previous if other != finding)]
        if any(slots_of(changed) & slots_of(other) for other in others):
            changed = finding
        kept.append(changed)
        difference = changed.grade - finding.grade
        changes.append("larger" if difference > 0 else "smaller" if difference else "unchanged")
    gone = {finding.category for finding in resolved}
    wanted = int(rng.choice(3, p=(0.45, 0.4, 0.15)))
    findings = _with_new_findings(tuple(kept), wanted, rng, world)
    # What has just gone does not come back elsewhere: "resolved" would contradict it.
    fresh = tuple(f for f in findings[len(kept) :] if f.category not in gone)
    changes += ["new"] * len(fresh)
    return (*kept, *fresh), tuple(changes), tuple(resolved)


def _with_new_findings(
    findings: tuple[Finding, ...], count: int, rng: Generator, world: WorldConfig
) -> tuple[Finding, ...]:
    for _ in range(count):
        # One more try; a crowded chest may stay as it is.
        share = world.focal_share
        if new := draw_finding(rng, findings, share) or draw_finding(rng, findings, share):
            findings = (*findings, new)
    return findings


def _bedside_devices(rng: Generator) -> tuple[Device, ...]:
    devices: list[Device] = []
    if rng.random() < 0.25:
        devices.append("endotracheal tube")
    if rng.random() < 0.35:
        devices.append("right central line" if rng.random() < 0.7 else "left central line")
    return tuple(devices)


def _framed(pose: Pose, world: WorldConfig, rng: Generator) -> Pose:
    right, down = rng.uniform(-world.shift_cm, world.shift_cm, 2)
    return replace(
        pose,
        right_cm=pose.right_cm + right,
        down_cm=pose.down_cm + down,
        zoom=rng.uniform(*world.zoom),
    )


def _draw_pose(rng: Generator, *, spread_degrees: float) -> Pose:
    return Pose(rng.normal(0, spread_degrees), rng.normal(0, 0.5), rng.normal(0, 0.5))
