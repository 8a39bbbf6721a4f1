"""How radiologists put one fact: phrasings of a finding by kind, side, zone and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from numpy.random import Generator

from data_shards.phantom.images.findings import Finding, Zone
from data_shards.phantom.study import Change

PHRASINGS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("phrasings.yaml").read_text())


@dataclass(frozen=True)
class NounPhrase:
    """A finding as a noun phrase without its article. `article`: takes "a"; else mass or plural."""

    text: str
    article: bool = True
    plural: bool = False

    def with_article(self) -> str:
        """The phrase with "a" or "an" where it takes one."""
        if not self.article:
            return self.text
        return f"{'an' if self.text[0] in 'aeiou' else 'a'} {self.text}"


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
    text = wording(rng, "changed", change).format(
        full=phrase.text,
        with_article=phrase.with_article(),
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
