"""What a report says of a study, sentence by sentence, with what each sentence asserts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from numpy.random import Generator

from data_shards.phantom.images.anatomy import LUNGS
from data_shards.phantom.images.findings import Finding
from data_shards.phantom.reports.phrases import (
    PHRASINGS,
    capitalised,
    is_hedged,
    noun_phrase,
    resolved_sentence,
    sentence,
    wording,
)
from data_shards.phantom.study import Study


@dataclass(frozen=True)
class Statement:
    """A sentence, what it asserts, and the number of the finding it is about, if of one."""

    text: str
    labels: dict[str, int] = field(default_factory=dict)
    finding: int | None = None


def finding_statements(study: Study, rng: Generator) -> list[Statement]:
    """One sentence on each finding, and on what has gone since the last study."""
    statements = [
        Statement(sentence(finding, change, rng), _labels_asserted(finding), index)
        for index, (finding, change) in enumerate(zip(study.findings, study.changes, strict=True))
    ]
    # A second nodule may remain; then the category stays positive.
    left = {finding.category for finding in study.findings}
    statements += [
        Statement(resolved_sentence(gone, rng), {gone.category: 0})
        for gone in study.resolved
        if gone.category not in left
    ]
    return statements


def _labels_asserted(finding: Finding) -> dict[str, int]:
    if finding.category == "Pneumonia":
        return {"Pneumonia": -1 if is_hedged(finding) else 1, "Lung Opacity": 1}
    return {finding.category: 1}


def negations(study: Study, rng: Generator) -> list[Statement]:
    """What is not there: some of the usual negatives, lungs that are clear."""
    present = {finding.category for finding in study.findings}
    absent = [name for name in PHRASINGS["negated"] if name not in present]
    if "Pneumonia" in present and "Consolidation" in absent:
        absent.remove("Consolidation")
    kept = [name for name in absent if rng.random() < (0.2 if name == "Fracture" else 0.75)]
    statements: list[Statement] = []
    for group in _split_at_random(kept, rng):
        names = [wording(rng, "negated", name) for name in group]
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
        text = wording(rng, "negations").format(listed)
        statements.append(Statement(text, dict.fromkeys(group, 0)))
    clear = [lung for lung in LUNGS if not any(lung in finding.lungs for finding in study.findings)]
    if rng.random() <= 0.6 and clear:
        both = len(clear) == len(LUNGS)
        text = wording(rng, "clear_lungs" if both else "clear_lung").format(clear[0])
        statements.append(Statement(text))
    for finding in study.findings:
        one_sided = finding.category == "Pleural Effusion" and len(finding.lungs) == 1
        if one_sided and rng.random() < 0.3:
            other = "left" if finding.side == "right" else "right"
            statements.append(Statement(f"No {other} pleural effusion."))
    return statements


def background(study: Study, rng: Generator) -> list[Statement]:
    """Heart size, breath, anatomy, devices and bones."""
    statements: list[Statement] = []
    if all(finding.category != "Cardiomegaly" for finding in study.findings):
        statements.append(_normal_heart(rng))
    if study.lung_volume != "normal" or rng.random() < 0.25:
        statements.append(Statement(wording(rng, "volumes", study.lung_volume)))
    if study.anatomy.is_tortuous:
        statements.append(Statement(wording(rng, "tortuous_aorta")))
    if study.anatomy.raised_dome and rng.random() < 0.8:
        text = wording(rng, "raised_dome").format(study.anatomy.raised_dome)
        statements.append(Statement(text))
    for device in study.devices:
        statements.append(Statement(wording(rng, "devices", device), {"Support Devices": 1}))
    if rng.random() < 0.3:
        statements.append(Statement(wording(rng, "distractors")))
    return statements


def _normal_heart(rng: Generator) -> Statement:
    if rng.random() < 0.3:
        labels = {"Enlarged Cardiomediastinum": 0, "Cardiomegaly": 0}
        return Statement(wording(rng, "normal_silhouette"), labels)
    return Statement(wording(rng, "normal_heart"), {"Cardiomegaly": 0})


def impression(study: Study, rng: Generator) -> list[Statement]:
    """The findings once more as noun phrases, or that there are none."""
    if not study.findings:
        return [Statement(wording(rng, "nothing"))]
    statements = [
        Statement(
            capitalised(noun_phrase(finding, rng).text) + ".", _labels_asserted(finding), index
        )
        for index, finding in enumerate(study.findings)
    ]
    statements = [statements[i] for i in rng.permutation(len(statements))]
    if rng.random() < 0.06:
        text = "Findings were discussed with Dr. ___ by telephone at 10:15 a.m. on ___."
        statements.append(Statement(text))
    return statements


def _split_at_random(names: Sequence[str], rng: Generator) -> list[list[str]]:
    order = [names[i] for i in rng.permutation(len(names))]
    cut = int(rng.integers(1, len(order) + 1)) if order else 0
    return [group for group in (order[:cut], order[cut:]) if group]
