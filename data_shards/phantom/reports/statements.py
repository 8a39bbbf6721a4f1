"""What a report says of a study, sentence by sentence, with what each sentence asserts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from numpy.random import Generator

from data_shards.phantom.images.anatomy import LUNGS
from data_shards.phantom.images.findings import Finding, Zone
from data_shards.phantom.study import Change, Study

PHRASINGS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("phrasings.yaml").read_text())


@dataclass(frozen=True)
class NounPhrase:
    """A finding as a noun phrase without its article. `article`: takes "a"; else mass or plural."""

    text: str
    article: bool = True
    plural: bool = False


def pick(rng: Generator, choices: Sequence[str]) -> str:
    """One of several phrasings."""
    return choices[int(rng.integers(len(choices)))]


def wording(rng: Generator, name: str, key: object = None) -> str:
    """One of the phrasings that `phrasings.yaml` has under a name (and a key below it)."""
    return pick(rng, PHRASINGS[name] if key is None else PHRASINGS[name][key])


def capitalised(text: str) -> str:
    """The text with an upper-case first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def is_hedged(finding: Finding) -> bool:
    """Whether reports only suspect this pneumonia: its label is uncertain, then."""
    return finding.category == "Pneumonia" and finding.shape_seed % 3 == 0


def noun_phrase(finding: Finding, rng: Generator) -> NounPhrase:
    """One phrasing of a finding, always with its side, zone and size where it has them."""
    size, degree = (wording(rng, name, finding.grade) for name in ("size", "degree"))
    match finding.category:
        case "Cardiomegaly":
            kind = "cardiomegaly" if rng.random() < 0.5 else "enlargement of the cardiac silhouette"
            return NounPhrase(f"{degree} {kind}", article=False)
        case "Edema":
            return NounPhrase(f"{degree} {wording(rng, 'edema')}", article=False)
        case "Pleural Effusion" | "Pneumothorax":
            if finding.side == "bilateral":
                return NounPhrase(f"{size} bilateral pleural effusions", article=False, plural=True)
            choice = wording(rng, "sided", finding.category)
            return NounPhrase(choice.format(size=size, side=finding.side))
        case _:
            return _focal_phrase(finding, rng)


def sentence(finding: Finding, change: Change, rng: Generator) -> str:
    """One sentence on a finding and on how it changed since the last study."""
    if finding.category == "Cardiomegaly" and change in ("first seen", "unchanged"):
        verb = "remains" if change == "unchanged" else "is"
        return f"The {wording(rng, 'silhouette')} {verb} {wording(rng, 'enlarged', finding.grade)}."
    phrase = noun_phrase(finding, rng)
    article = "an " if phrase.text[0] in "aeiou" else "a "
    text = wording(rng, "changed", change).format(
        full=phrase.text,
        with_article=(article if phrase.article else "") + phrase.text,
        article="a " if phrase.article else "",
        verb="are" if phrase.plural else "is",
    )
    return f"{capitalised(text)}."


def resolved_sentence(finding: Finding, rng: Generator) -> str:
    """That a finding of the last study is gone."""
    special = {"Edema": "pulmonary edema", "Lung Opacity": "opacity"}
    name = special.get(finding.category, finding.category.lower())
    where = "" if finding.side in (None, "bilateral") else f"{finding.side} "
    return wording(rng, "resolved").format(what=where + name)


def _focal_phrase(finding: Finding, rng: Generator) -> NounPhrase:
    assert finding.zone is not None
    assert finding.side is not None
    grade, where = finding.grade, _place(rng, finding.side, finding.zone)
    facts = {"where": where, "size": wording(rng, "size", grade)}
    match finding.category:
        case "Pneumonia":
            extent = PHRASINGS["pneumonia_extent"][grade]
            reading = f"{'suspected' if is_hedged(finding) else 'certain'}_pneumonia"
            opacities = f"{extent} opacities in the {where} {wording(rng, reading)}"
            return NounPhrase(opacities, article=False, plural=True)
        case "Atelectasis":
            kind = PHRASINGS["atelectasis_extent"][grade] + wording(rng, "atelectasis")
            return NounPhrase(f"{kind} atelectasis in the {where}", article=False)
        case "Lung Lesion":
            assert finding.diameter_cm is not None
            measures = (f"{finding.diameter_cm} cm", f"{round(10 * finding.diameter_cm)} mm")
            facts |= {"measure": pick(rng, measures), "name": "mass" if grade == 3 else "nodule"}
    return NounPhrase(wording(rng, "in_a_zone", finding.category).format(**facts))


def _place(rng: Generator, side: str, zone: Zone) -> str:
    """A zone of a lung: "right lung base", "left upper lobe"."""
    choices = list(PHRASINGS["place"][zone])
    if zone == "mid":
        choices.append("middle lobe" if side == "right" else "lingula")
    return f"{side} {pick(rng, choices)}"


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
        if rng.random() < 0.3:
            labels = {"Enlarged Cardiomediastinum": 0, "Cardiomegaly": 0}
            statements.append(Statement(wording(rng, "normal_silhouette"), labels))
        else:
            statements.append(Statement(wording(rng, "normal_heart"), {"Cardiomegaly": 0}))
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
