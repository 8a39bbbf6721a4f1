"""Reports in MIMIC-CXR's style, with the labels and phrases they support.

The text is put together from statements that carry what they assert, so that labels and
phrases follow the report: a label is 1, 0 or -1 (suspected) only where a sentence says so.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from numpy.random import Generator

from data_shards.phantom.anatomy import LUNGS, is_tortuous
from data_shards.phantom.devices import Device
from data_shards.phantom.phrases import (
    capitalised,
    clear_lung_sentence,
    is_hedged,
    noun_phrase,
    pick,
    resolved_sentence,
    sentence,
)
from data_shards.phantom.study import Study

CHEXPERT_LABELS: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
_COLUMNS = 79
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


@dataclass(frozen=True)
class Statement:
    """A sentence, what it asserts, and the number of the finding it is about, if of one."""

    text: str
    labels: dict[str, int] = field(default_factory=dict)
    finding: int | None = None


@dataclass(frozen=True)
class WrittenReport:
    """A report's text, its CheXpert labels (absent: not mentioned) and each finding's phrase."""

    text: str
    labels: dict[str, int]
    phrases: tuple[str, ...]


def write_report(study: Study, rng: Generator) -> WrittenReport:
    """The report of a study; every finding is stated, and nothing that is not there."""
    body = _shuffled_groups(
        [_finding_statements(study, rng), _negations(study, rng), _background(study, rng)], rng
    )
    layout = rng.choice(4, p=(0.72, 0.10, 0.08, 0.10))
    if layout == 0:
        impression = _impression(study, rng)
        sections = [("FINDINGS", _paragraph(body, rng)), ("IMPRESSION", _listing(impression, rng))]
    else:
        impression = []
        name = ("IMPRESSION", "FINDINGS AND IMPRESSION", "FINDINGS")[layout - 1]
        text = _listing(body, rng) if name == "IMPRESSION" else _paragraph(body, rng)
        sections = [(name, text)]
    statements = [*body, *impression]
    return WrittenReport(
        text=_assemble(_preliminaries(study, rng) + sections, rng),
        labels=_labels_of(statements),
        phrases=tuple(_phrase_of(statements, i, rng) for i in range(len(study.findings))),
    )


def _finding_statements(study: Study, rng: Generator) -> list[Statement]:
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


def _negations(study: Study, rng: Generator) -> list[Statement]:
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


def _background(study: Study, rng: Generator) -> list[Statement]:
    """Heart size, breath, anatomy, devices and bones."""
    statements: list[Statement] = []
    if all(finding.category != "Cardiomegaly" for finding in study.findings):
        statements.append(_normal_heart(rng))
    volume = {
        "low": ("Lung volumes are low.", "Low lung volumes.", "The inspiration is shallow."),
        "normal": ("The lungs are well expanded.", "Normal lung volumes."),
        "high": ("The lungs are hyperinflated.", "Hyperexpanded lungs with flat diaphragms."),
    }[study.lung_volume]
    if study.lung_volume != "normal" or rng.random() < 0.25:
        statements.append(Statement(pick(rng, volume)))
    if is_tortuous(study.anatomy):
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


_DISTRACTORS = (
    "Degenerative changes are noted in the thoracic spine.",
    "Mild degenerative changes of the spine, e.g. small osteophytes.",
    "The upper abdomen is unremarkable.",
    "Imaged osseous structures are intact.",
    "Surgical clips project over the upper abdomen.",
)


def _normal_heart(rng: Generator) -> Statement:
    if rng.random() < 0.3:
        text = pick(
            rng,
            (
                "The cardiomediastinal silhouette is normal.",
                "Cardiomediastinal contours are within normal limits.",
            ),
        )
        return Statement(text, {"Enlarged Cardiomediastinum": 0, "Cardiomegaly": 0})
    text = pick(
        rng,
        (
            "The heart size is normal.",
            "Heart size is within normal limits.",
            "The cardiac silhouette is normal in size.",
            "The heart is not enlarged.",
        ),
    )
    return Statement(text, {"Cardiomegaly": 0})


def _impression(study: Study, rng: Generator) -> list[Statement]:
    if not study.findings:
        text = pick(
            rng,
            (
                "No acute cardiopulmonary process.",
                "No acute cardiopulmonary abnormality.",
                "No acute intrathoracic process.",
                "No evidence of acute cardiopulmonary disease.",
            ),
        )
        return [Statement(text)]
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


def _labels_of(statements: Sequence[Statement]) -> dict[str, int]:
    """All labels asserted; a positive outranks a suspicion, which outranks a negation."""
    labels: dict[str, int] = {}
    for statement in statements:
        for name, value in statement.labels.items():
            labels[name] = max(labels.get(name, 0), value, key=_STRENGTH.__getitem__)
    abnormal = (value for name, value in labels.items() if name != "Support Devices")
    if not any(abnormal):
        labels["No Finding"] = 1
    return labels


_STRENGTH = {0: 0, -1: 1, 1: 2}


def _phrase_of(statements: Sequence[Statement], index: int, rng: Generator) -> str:
    """One of the sentences on a finding, without its full stop, as MS-CXR gives them."""
    about = tuple(each.text.removesuffix(".") for each in statements if each.finding == index)
    return pick(rng, about)


def examination_title(study: Study) -> str:
    """The examination as ordered: "CHEST (PA AND LAT)"."""
    if study.projection == "AP":
        return "CHEST (PORTABLE AP)"
    return "CHEST (PA AND LAT)" if study.has_lateral else "CHEST (SINGLE VIEW)"


def _preliminaries(study: Study, rng: Generator) -> list[tuple[str, str]]:
    portable = study.projection == "AP"
    person = "man" if study.anatomy.sex == "M" else "woman"
    complaint = pick(rng, ("cough", "dyspnea", "fever", "chest pain", "a fall", "weakness"))
    question = pick(
        rng, ("pneumonia?", "acute process", "eval for interval change", "volume status")
    )
    upright = "Chest PA and lateral" if study.has_lateral else "Single PA view of the chest"
    technique = "Portable AP view of the chest" if portable else upright
    lines = [
        ("EXAMINATION", examination_title(study)),
        ("INDICATION", f"___ year old {person} with {complaint}  // {question}"),
        ("TECHNIQUE", f"{technique}."),
        ("COMPARISON", "None." if study.is_first else pick(rng, ("___.", "Chest radiograph ___."))),
    ]
    kept = [line for line in lines if rng.random() < 0.85]
    return kept or lines[:1]


def _assemble(sections: Sequence[tuple[str, str]], rng: Generator) -> str:
    title = " " * 33 + "FINAL REPORT\n"
    parts: list[str] = []
    if rng.random() < 0.02:
        addendum = " ADDENDUM  The report was reviewed with Dr. ___ at 9:30 a.m. on ___."
        parts.append(f"{title}{addendum}\n {'_' * (_COLUMNS - 1)}\n")
    parts.append(title)
    for name, text in sections:
        on_the_same_line = name not in ("FINDINGS", "IMPRESSION") or rng.random() < 0.4
        paragraphs = text.split("\n")
        if on_the_same_line:
            paragraphs[0] = f"{name}:  {paragraphs[0]}"
        else:
            parts.append(f" {name}: \n \n")
        for paragraph in paragraphs:
            wrapped = textwrap.wrap(paragraph, _COLUMNS - 1, break_on_hyphens=False)
            parts += [f" {line}\n" for line in wrapped]
        parts.append(" \n")
    return "".join(parts).rstrip() + "\n"


def _paragraph(statements: Sequence[Statement], rng: Generator) -> str:
    gap = "  " if rng.random() < 0.5 else " "
    return gap.join(statement.text for statement in statements)


def _listing(statements: Sequence[Statement], rng: Generator) -> str:
    """A paragraph, or one numbered line a statement."""
    if len(statements) < 2 or rng.random() < 0.5:
        return _paragraph(statements, rng)
    return "\n".join(f"{i}. {statement.text}" for i, statement in enumerate(statements, 1))


def _shuffled_groups(groups: Sequence[list[Statement]], rng: Generator) -> list[Statement]:
    """All statements, group by group in random order, shuffled within each group."""
    ordered: list[Statement] = []
    for i in rng.permutation(len(groups)):
        ordered += [groups[i][j] for j in rng.permutation(len(groups[i]))]
    return ordered


def _split_at_random(names: Sequence[str], rng: Generator) -> list[list[str]]:
    order = [names[i] for i in rng.permutation(len(names))]
    cut = int(rng.integers(1, len(order) + 1)) if order else 0
    return [group for group in (order[:cut], order[cut:]) if group]
