"""Reports in MIMIC-CXR's style, with the labels and phrases they support.

The text is put together from statements that carry what they assert, so that labels and
phrases follow the report: a label is 1, 0 or -1 (suspected) only where a sentence says so.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

from numpy.random import Generator

from data_shards.phantom.reports.places import without_place
from data_shards.phantom.reports.statements import (
    Statement,
    background,
    finding_statements,
    impression,
    negations,
    pick,
    wording,
)
from data_shards.phantom.study import Study

_COLUMNS = 79


@dataclass(frozen=True)
class WrittenReport:
    """A report's text, its CheXpert labels (absent: not mentioned) and each finding's phrase."""

    text: str
    labels: dict[str, int]
    phrases: tuple[str, ...]


def write_report(study: Study, rng: Generator, *, place_words: bool = True) -> WrittenReport:
    """The report of a study; every finding is stated, and nothing that is not there.

    Without `place_words` no finding has a side or a zone.
    """
    told = _as_they_are if place_words else _without_places
    groups = [finding_statements(study, rng), negations(study, rng), background(study, rng)]
    body = told(_shuffled_groups(groups, rng))
    layout = rng.choice(4, p=(0.72, 0.10, 0.08, 0.10))
    if layout == 0:
        conclusion = told(impression(study, rng))
        sections = [("FINDINGS", _paragraph(body, rng)), ("IMPRESSION", _listing(conclusion, rng))]
    else:
        conclusion = []
        name = ("IMPRESSION", "FINDINGS AND IMPRESSION", "FINDINGS")[layout - 1]
        text = _listing(body, rng) if name == "IMPRESSION" else _paragraph(body, rng)
        sections = [(name, text)]
    statements = [*body, *conclusion]
    return WrittenReport(
        text=_assemble(_preliminaries(study, rng) + sections, rng),
        labels=_labels_of(statements),
        # As MS-CXR gives them: one of the sentences on a finding, without its full stop.
        phrases=tuple(
            pick(rng, [each.text.removesuffix(".") for each in statements if each.finding == i])
            for i in range(len(study.findings))
        ),
    )


def _as_they_are(statements: list[Statement]) -> list[Statement]:
    return statements


def _without_places(statements: list[Statement]) -> list[Statement]:
    plain = ((each, without_place(each.text)) for each in statements)
    return [replace(each, text=text) for each, text in plain if text is not None]


def _labels_of(statements: Sequence[Statement]) -> dict[str, int]:
    """All labels asserted; a positive outranks a suspicion, which outranks a negation."""
    labels: dict[str, int] = {}
    for statement in statements:
        for name, value in statement.labels.items():
            labels[name] = max(labels.get(name, 0), value, key=(0, -1, 1).index)
    abnormal = (value for name, value in labels.items() if name != "Support Devices")
    if not any(abnormal):
        labels["No Finding"] = 1
    return labels


def examination_title(study: Study) -> str:
    """The examination as ordered: "CHEST (PA AND LAT)"."""
    if study.projection == "AP":
        return "CHEST (PORTABLE AP)"
    return "CHEST (PA AND LAT)" if study.has_lateral else "CHEST (SINGLE VIEW)"


def _preliminaries(study: Study, rng: Generator) -> list[tuple[str, str]]:
    portable = study.projection == "AP"
    person = "man" if study.anatomy.sex == "M" else "woman"
    complaint, question = wording(rng, "complaint"), wording(rng, "question")
    upright = "Chest PA and lateral" if study.has_lateral else "Single PA view of the chest"
    technique = "Portable AP view of the chest" if portable else upright
    lines = [
        ("EXAMINATION", examination_title(study)),
        ("INDICATION", f"___ year old {person} with {complaint}  // {question}"),
        ("TECHNIQUE", f"{technique}."),
        ("COMPARISON", "None." if study.is_first else wording(rng, "comparison")),
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
