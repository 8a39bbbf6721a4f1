"""A `Report` made of raw text, or of the sections a table already separates."""

from __future__ import annotations

from collections.abc import Mapping

from data_shards.records.policies import FREE_TEXT
from data_shards.records.study import Report
from data_shards.report_text.sections import MAIN_SECTIONS, split_sections
from data_shards.report_text.sentences import split_sentences


def parse_report(raw: str) -> Report:
    """The sections and sentences of a report in MIMIC-CXR's layout."""
    return report_of_sections(raw, split_sections(raw))


def parse_plain_report(raw: str) -> Report:
    """The sections and sentences of a text of any layout.

    Headers count at the start of any line. A text with neither findings nor impression
    becomes one section `FREE_TEXT`, which every text policy falls back to.
    """
    sections = split_sections(raw, indented=False)
    if not any(name in sections for name in MAIN_SECTIONS):
        sections = {FREE_TEXT: raw.strip()}
    return report_of_sections(raw, sections)


def report_of_sections(raw: str, sections: Mapping[str, str]) -> Report:
    """`sections` with their sentences; `raw` is kept as it is."""
    sentences = {name: split_sentences(section) for name, section in sections.items()}
    return Report(raw=raw, sections=dict(sections), sentences=sentences)
