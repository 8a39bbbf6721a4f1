"""What a report says of a study, sentence by sentence, with what each sentence asserts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from numpy.random import Generator

from data_shards.phantom.images.anatomy import LUNGS, LungVolume
from data_shards.phantom.images.devices import Device
from data_shards.phantom.reports.phrases import (
    capitalised,
    clear_lung_sentence,
    is_hedged,
    noun_phrase,
    pick,
    resolved_sentence,
    sentence,
)
from data_shards.phantom.study import Study

_NEGATED = {
    "Pleural Effusion": ("pleural effusion", "effusion"),
    "Pneumothorax": ("pneumothorax",),
    "Consolidation": ("focal consolidation", "consolidation"),
    "Edema": ("pulmonary edema", "overt pulmonary edema"),
    "Fracture": ("acute fracture", "displaced rib fracture"),
}
_DEVICE_SENTENCES: dict[Device, tuple[str, ...]] = {
    "pacemaker": (
        "A left-sided pacemaker is in place with its lead in the right ventricle.",
        "Left chest wall pacemaker, lead tip in unchanged position.",
    ),
    "sternal wires": (
        "Median sternotomy wires are intact.",
        "The patient is status post median sternotomy.",
    ),
    "endotracheal tube": (
        "An endotracheal tube ends 4.5 cm above the carina.",
        "The ET tube is in standard position.",
    ),
    "right central line": (
        "Right internal jugular central venous catheter ends in the low SVC.",
        "A right IJ line terminates in the SVC.",
    ),
    "left central line": (
        "Left internal jugular central venous catheter ends in the low SVC.",
        "A left IJ line terminates in the SVC.",
    ),
}
_NORMAL_SILHOUETTE = (
    "The cardiomediastinal silhouette is normal.",
    "Cardiomediastinal contours are within normal limits.",
)
_NORMAL_HEART = (
    "The heart size is normal.",
    "Heart size is within normal limits.",
    "The cardiac silhouette is normal in size.",
    "The heart is not enlarged.",
)
_VOLUMES: dict[LungVolume, tuple[str, ...]] = {
    "low": ("Lung volumes are low.", "Low lung volumes.", "The inspiration is shallow."),
    "normal": ("The lungs are well expanded.", "Normal lung volumes."),
    "high": ("The lungs are hyperinflated.", "Hyperexpanded lungs with flat diaphragms."),
}
_DISTRACTORS = (
    "Degenerative changes are noted in the thoracic spine.",
    "Mild degenerative changes of the spine, e.g. small osteophytes.",
    "The upper abdomen is unremarkable.",
    "Imaged osseous structures are intact.",
)
_NOTHING = (
    "No acute cardiopulmonary process.",
    "No acute cardiopulmonary abnormality.",
    "No acute intrathoracic process.",
    "No evidence of acute cardiopulmonary disease.",
)


@dataclass(frozen=True)
class Statement:
    """A sentence, what it asserts, and the number of the finding it is about, if of one."""

    text: str
    labels: dict[str, int] = field(default_factory=dict)
    finding: int | None = None


def finding_statements(study: Study, rng: Generator) -> list[Statement]:
    """One sentence on each finding, and on what has gone since the last study."""
    statements: list[Statement] = []
    for index, finding in enumerate(study.findings):
        text = sentence(finding, study.changes[index], rng)
        statements.append(Statement(text, _labels_asserted(study, index), index))
    for gone in study.resolved:
        # A second nodule may remain; then the category stays positive.
        if all(finding.category != gone.category for finding in study.findings):
            statements.append(Statement(resolved_sentence(gone, rng), {gone.category: 0}))
    return statements


def _labels_asserted(study: Study, index: int) -> dict[str, int]:
    finding = study.findings[index]
    if finding.category == "Pneumonia":
        return {"Pneumonia": -1 if is_hedged(finding) else 1, "Lung Opacity": 1}
    return {finding.category: 1}


def negations(study: Study, rng: Generator) -> list[Statement]:
    """What is not there: some of the usual negatives, lungs that are clear."""
    present = {finding.category for finding in study.findings}
    absent = [name for name in _NEGATED if name not in present]
    if "Pneumonia" in present and "Consolidation" in absent:
        absent.remove("Consolidation")
    kept = [name for name in absent if rng.random() < (0.2 if name == "Fracture" else 0.75)]
    statements: list[Statement] = []
    for group in _split_at_random(kept, rng):
        names = [pick(rng, _NEGATED[name]) for name in group]
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
        text = pick(rng, ("There is no {}.", "No {}.", "No {} is seen.", "No evidence of {}."))
        statements.append(Statement(text.format(listed), dict.fromkeys(group, 0)))
    statements += _clear_lungs(study, rng)
    for finding in study.findings:
        if finding.category == "Pleural Effusion" and len(finding.lungs) == 1:
            other = "left" if finding.side == "right" else "right"
            if rng.random() < 0.3:
                statements.append(Statement(f"No {other} pleural effusion."))
    return statements


def _clear_lungs(study: Study, rng: Generator) -> list[Statement]:
    clear = [lung for lung in LUNGS if not any(lung in finding.lungs for finding in study.findings)]
    if rng.random() > 0.6 or not clear:
        return []
    both = len(clear) == len(LUNGS)
    return [Statement(clear_lung_sentence(None if both else clear[0], rng))]


def background(study: Study, rng: Generator) -> list[Statement]:
    """Heart size, breath, anatomy, devices and bones."""
    statements: list[Statement] = []
    if all(finding.category != "Cardiomegaly" for finding in study.findings):
        statements.append(_normal_heart(rng))
    if study.lung_volume != "normal" or rng.random() < 0.25:
        statements.append(Statement(pick(rng, _VOLUMES[study.lung_volume])))
    if study.anatomy.is_tortuous:
        text = pick(rng, ("The aorta is tortuous.", "Prominent aortic knob.", "Tortuous aorta."))
        statements.append(Statement(text))
    if study.anatomy.raised_dome and rng.random() < 0.8:
        side = study.anatomy.raised_dome
        choices = (f"The {side} hemidiaphragm is elevated.", f"Elevated {side} hemidiaphragm.")
        statements.append(Statement(pick(rng, choices)))
    for device in study.devices:
        text = pick(rng, _DEVICE_SENTENCES[device])
        statements.append(Statement(text, {"Support Devices": 1}))
    if rng.random() < 0.3:
        statements.append(Statement(pick(rng, _DISTRACTORS)))
    return statements


def _normal_heart(rng: Generator) -> Statement:
    if rng.random() < 0.3:
        labels = {"Enlarged Cardiomediastinum": 0, "Cardiomegaly": 0}
        return Statement(pick(rng, _NORMAL_SILHOUETTE), labels)
    return Statement(pick(rng, _NORMAL_HEART), {"Cardiomegaly": 0})


def impression(study: Study, rng: Generator) -> list[Statement]:
    """The findings once more as noun phrases, or that there are none."""
    if not study.findings:
        return [Statement(pick(rng, _NOTHING))]
    statements = [
        Statement(
            capitalised(noun_phrase(finding, rng).text) + ".", _labels_asserted(study, index), index
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
