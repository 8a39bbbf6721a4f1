"""What reports say is read back from their text, by rules that know nothing of the writer."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest

from data_shards.phantom.images.findings import Finding
from data_shards.phantom.layouts.mimic_cxr import CHEXPERT_LABELS
from data_shards.phantom.reports.report_writer import WrittenReport, write_report
from data_shards.phantom.study import Study, draw_patient, plan_patients
from data_shards.report_text.report import parse_report

SEED = 9
WORDS = {
    "Pleural Effusion": r"pleural effusions?",
    "Pneumothorax": r"pneumothorax",
    "Consolidation": r"consolidation",
    "Edema": r"edema",
    "Atelectasis": r"atelectasis",
    "Pneumonia": r"pneumonia",
    "Lung Lesion": r"nodule|mass\b",
    "Lung Opacity": r"opacity|opacities",
    "Cardiomegaly": r"cardiomegaly|enlargement of the cardiac|enlarged",
}
NEGATION = re.compile(r"\bno\b|\bnot\b|resolved|resolution|clear\b", re.IGNORECASE)
ZONE_WORDS = {
    "upper": r"upper (lung|zone|lobe)",
    "mid": r"mid (lung|zone)|middle lobe|lingula",
    "lower": r"lower (lung|lobe|zone)|lung base",
}
SIZE_WORDS = {
    1: r"small|mild|slight",
    2: r"moderate",
    3: r"large|severe|marked",
}


@cache
def written() -> tuple[tuple[Study, WrittenReport], ...]:
    plans = plan_patients(SEED, {"train": 400, "validate": 0, "test": 0})
    return tuple(
        (study, write_report(study, np.random.default_rng([SEED, study.number, 2])))
        for plan in plans
        for study in draw_patient(SEED, plan)
    )


def read_sentences(report: WrittenReport) -> list[str]:
    parsed = parse_report(report.text)
    return [
        sentence
        for name in ("findings", "impression")
        for sentence in parsed.sentences.get(name, ())
    ]


def positive_sentences(report: WrittenReport, category: str) -> list[str]:
    mentions = [s for s in read_sentences(report) if re.search(WORDS[category], s, re.IGNORECASE)]
    return [sentence for sentence in mentions if not NEGATION.search(sentence)]


def states(sentence: str, finding: Finding) -> bool:
    """Whether a sentence gives the kind, side and zone of a finding."""
    low = sentence.lower()
    if not re.search(WORDS[finding.category], low):
        return False
    if finding.side in ("left", "right") and finding.side not in low:
        return False
    if finding.category == "Pleural Effusion" and finding.side == "bilateral":
        return "bilateral" in low
    return finding.zone is None or re.search(ZONE_WORDS[finding.zone], low) is not None


def test_every_finding_is_stated_with_its_side_and_zone() -> None:
    for study, report in written():
        sentences = read_sentences(report)
        for finding in study.findings:
            assert any(states(sentence, finding) for sentence in sentences), report.text


def test_nothing_is_stated_that_is_not_there() -> None:
    for study, report in written():
        present = {finding.category for finding in study.findings}
        if "Pneumonia" in present:
            present.add("Lung Opacity")
        for category in WORDS:
            for sentence in positive_sentences(report, category):
                assert category in present, f"{category}: {sentence}"
                matching = [f for f in study.findings if f.category == category]
                assert category == "Lung Opacity" or any(states(sentence, f) for f in matching)


def test_nothing_that_is_there_is_denied() -> None:
    for study, report in written():
        for sentence in read_sentences(report):
            if not re.match(r"(There is )?no\b", sentence, re.IGNORECASE):
                continue
            for finding in study.findings:
                denied = re.search(WORDS[finding.category], sentence, re.IGNORECASE)
                other_side = finding.side in ("left", "right") and re.search(
                    "left" if finding.side == "right" else "right", sentence
                )
                assert not denied or other_side, report.text


def test_a_lung_called_clear_has_no_finding() -> None:
    clear = 0
    for study, report in written():
        for sentence in read_sentences(report):
            called = re.match(r"(?:The|Both) ?(left|right|lungs)\b.*\bclear\.", sentence)
            if called:
                clear += 1
                lungs = {lung for finding in study.findings for lung in finding.lungs}
                assert not lungs if called[1] == "lungs" else called[1] not in lungs
    assert clear > 40


@pytest.mark.parametrize("category", ["Pleural Effusion", "Pneumothorax", "Cardiomegaly"])
def test_the_size_is_stated(category: str) -> None:
    for study, report in written():
        for finding in study.findings:
            if finding.category == category:
                for phrase in positive_sentences(report, category):
                    assert re.search(SIZE_WORDS[finding.grade], phrase, re.IGNORECASE)


def test_labels_agree_with_the_findings() -> None:
    for study, report in written():
        assert set(report.labels) <= set(CHEXPERT_LABELS)
        for finding in study.findings:
            hedged = {-1, 1} if finding.category == "Pneumonia" else {1}
            assert report.labels[finding.category] in hedged
        assert ("No Finding" in report.labels) == (not study.findings)
        assert ("Support Devices" in report.labels) == bool(study.devices)
        categories = {finding.category for finding in study.findings}
        for name, value in report.labels.items():
            if value != 0 and name not in ("No Finding", "Support Devices", "Lung Opacity"):
                assert name in categories


def test_a_suspected_pneumonia_is_uncertain() -> None:
    seen = set()
    for _, report in written():
        value = report.labels.get("Pneumonia", 0)
        suspected = re.search(r"concerning\s+for|may\s+represent", report.text) is not None
        if value:
            assert (value == -1) == suspected
            seen.add(value)
    assert seen == {-1, 1}


def test_phrases_are_sentences_of_the_report_on_their_finding() -> None:
    for study, report in written():
        sentences = {sentence.removesuffix(".") for sentence in read_sentences(report)}
        for finding, phrase in zip(study.findings, report.phrases, strict=True):
            assert phrase in sentences
            assert states(phrase, finding)


def test_reports_look_like_the_archive() -> None:
    lines = [line for _, report in written() for line in report.text.splitlines()]
    assert max(map(len, lines)) <= 79
    sections = [set(parse_report(report.text).sections) for _, report in written()]
    both = {"findings", "impression"}
    assert 0.5 < np.mean([both <= names for names in sections]) < 0.9
    assert any(both & names == {"impression"} for names in sections)
    assert all(both & names for names in sections)
    assert any(re.search(r"^ 2\. ", report.text, re.MULTILINE) for _, report in written())
    assert all("FINAL REPORT" in report.text for _, report in written())
    assert any("ADDENDUM" in report.text for _, report in written())


def test_hardly_two_reports_are_the_same() -> None:
    told = [" ".join(read_sentences(report)) for _, report in written()]
    assert len(set(told)) > 0.97 * len(told)
