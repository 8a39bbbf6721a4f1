"""How radiologists put one fact: phrasings of a finding by kind, side, zone and size."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.random import Generator

from data_shards.phantom.images.anatomy import Lung
from data_shards.phantom.images.findings import Finding, Zone
from data_shards.phantom.study import Change

_SIZE = {1: ("small",), 2: ("moderate", "moderate-sized"), 3: ("large",)}
_DEGREE = {1: ("mild", "mild"), 2: ("moderate",), 3: ("severe", "marked")}
_ENLARGED = {
    1: ("mildly enlarged", "slightly enlarged"),
    2: ("moderately enlarged",),
    3: ("severely enlarged", "markedly enlarged"),
}
_SIDED = {
    "Pleural Effusion": (
        "{size} {side} pleural effusion",
        "{size} {side}-sided pleural effusion",
        "{size} pleural effusion on the {side}",
    ),
    "Pneumothorax": (
        "{size} {side} pneumothorax",
        "{size} {side} apical pneumothorax",
        "{size} {side}-sided pneumothorax",
    ),
}
_IN_A_ZONE = {
    "Consolidation": (
        "{size} consolidation in the {where}",
        "{size} {where} consolidation",
        "{size} airspace consolidation in the {where}",
    ),
    "Lung Opacity": (
        "{size} hazy opacity in the {where}",
        "{size} ill-defined opacity projecting over the {where}",
        "{size} {where} ground-glass opacity",
    ),
    "Lung Lesion": (
        "{measure} {name} in the {where}",
        "{measure} {where} {name}",
        "rounded {name} in the {where} measuring {measure}",
    ),
}
_CHANGED: dict[Change, tuple[str, ...]] = {
    "first seen": (
        "there {verb} {with_article}",
        "{with_article} {verb} present",
        "{with_article} {verb} seen",
        "{full} {verb} noted",
        "{full}",
    ),
    "new": (
        "new {full}",
        "there {verb} {article}new {full}",
        "interval development of {with_article}",
    ),
    "larger": (
        "{full}, increased since the prior study",
        "{full} {verb} larger than on ___",
        "now {full}, worse than before",
    ),
    "smaller": (
        "{full}, decreased since the prior study",
        "{full} {verb} smaller than on ___",
        "now {full}, improved",
    ),
    "unchanged": ("unchanged {full}", "{full} {verb} stable", "{full} again noted"),
}
_PLACE: dict[Zone, tuple[str, ...]] = {
    "upper": ("upper lung", "upper zone", "upper lobe"),
    "mid": ("mid lung", "mid zone", "mid lung field"),
    "lower": ("lower lung", "lower lobe", "lung base", "lower zone"),
}


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


def pick(rng: Generator, choices: tuple[str, ...]) -> str:
    """One of several phrasings."""
    return choices[rng.integers(len(choices))]


def capitalised(text: str) -> str:
    """The text with an upper-case first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def is_hedged(finding: Finding) -> bool:
    """Whether reports only suspect this pneumonia: its label is uncertain, then."""
    return finding.category == "Pneumonia" and finding.shape_seed % 3 == 0


def noun_phrase(finding: Finding, rng: Generator) -> NounPhrase:
    """One phrasing of a finding, always with its side, zone and size where it has them."""
    size, degree = pick(rng, _SIZE[finding.grade]), pick(rng, _DEGREE[finding.grade])
    match finding.category:
        case "Cardiomegaly":
            kind = "cardiomegaly" if rng.random() < 0.5 else "enlargement of the cardiac silhouette"
            return NounPhrase(f"{degree} {kind}", article=False)
        case "Edema":
            kind = pick(rng, ("pulmonary edema", "perihilar edema", "bilateral pulmonary edema"))
            return NounPhrase(f"{degree} {kind}", article=False)
        case "Pleural Effusion" | "Pneumothorax":
            if finding.side == "bilateral":
                return NounPhrase(f"{size} bilateral pleural effusions", article=False, plural=True)
            choice = pick(rng, _SIDED[finding.category])
            return NounPhrase(choice.format(size=size, side=finding.side))
        case _:
            return _focal_phrase(finding, rng)


def sentence(finding: Finding, change: Change, rng: Generator) -> str:
    """One sentence on a finding and on how it changed since the last study."""
    if finding.category == "Cardiomegaly" and change in ("first seen", "unchanged"):
        silhouette = pick(rng, ("heart", "cardiac silhouette", "heart size"))
        verb = "remains" if change == "unchanged" else "is"
        return f"The {silhouette} {verb} {pick(rng, _ENLARGED[finding.grade])}."
    phrase = noun_phrase(finding, rng)
    text = pick(rng, _CHANGED[change]).format(
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
    seen = f"Previously seen {where}{name} has resolved."
    return pick(rng, (seen, f"Interval resolution of the {where}{name}."))


def clear_lung_sentence(lung: Lung | None, rng: Generator) -> str:
    """That a lung, or both, hold no disease."""
    if lung is None:
        return pick(rng, ("The lungs are clear.", "Both lungs are clear.", "Lungs are clear."))
    return pick(rng, (f"The {lung} lung is clear.", f"The {lung} lung remains clear."))


def _focal_phrase(finding: Finding, rng: Generator) -> NounPhrase:
    assert finding.zone is not None
    assert finding.side is not None
    where = _place(rng, finding.side, finding.zone)
    facts = {"where": where, "size": pick(rng, _SIZE[finding.grade])}
    match finding.category:
        case "Pneumonia":
            extent = {1: "small patchy", 2: "patchy", 3: "extensive patchy"}[finding.grade]
            certain = ("consistent with pneumonia", "compatible with pneumonia")
            suspected = ("concerning for pneumonia", "which may represent pneumonia")
            reading = pick(rng, suspected if is_hedged(finding) else certain)
            opacities = f"{extent} opacities in the {where} {reading}"
            return NounPhrase(opacities, article=False, plural=True)
        case "Atelectasis":
            kind = pick(rng, ("linear", "bandlike", "plate-like", "subsegmental"))
            extent = {1: "mild ", 2: "", 3: "extensive "}[finding.grade]
            return NounPhrase(f"{extent}{kind} atelectasis in the {where}", article=False)
        case "Lung Lesion":
            assert finding.diameter_cm is not None
            measures = (f"{finding.diameter_cm} cm", f"{round(10 * finding.diameter_cm)} mm")
            name = "mass" if finding.grade == 3 else "nodule"
            facts |= {"measure": pick(rng, measures), "name": name}
    return NounPhrase(pick(rng, _IN_A_ZONE[finding.category]).format(**facts))


def _place(rng: Generator, side: str, zone: Zone) -> str:
    """A zone of a lung: "right lung base", "left upper lobe"."""
    choices = _PLACE[zone]
    if zone == "mid":
        choices = (*choices, "middle lobe" if side == "right" else "lingula")
    return f"{side} {pick(rng, choices)}"
