"""A `Report` made of raw text: plain text, its sections cut at their headers, and sentences."""

from __future__ import annotations

from collections.abc import Mapping

from data_shards.records.policies import FREE_TEXT
from data_shards.records.study import Report
from data_shards.report_text.mimic_cxr_sections import split_sections
from data_shards.report_text.plain_sections import split_plain_sections
from data_shards.report_text.plain_text import plain_text
from data_shards.report_text.section_names import MAIN_SECTIONS
from data_shards.report_text.sentences import split_sentences


def parse_report(raw: str) -> Report:
    """The sections and sentences of a report in MIMIC-CXR's layout.

    Where the published rules find neither findings nor impression, but those for texts of any
    layout do ("Findings:"), the latter count.
    """
    text = plain_text(raw)
    sections = split_sections(text)
    if not any(name in sections for name in MAIN_SECTIONS):
        plain = split_plain_sections(text, {})
        if any(name in plain for name in MAIN_SECTIONS):
            sections = plain
    return report_of_sections(raw, sections)


def parse_plain_report(raw: str, *, more_names: Mapping[str, str] | None = None) -> Report:
    """The sections and sentences of a text of any layout.

    `more_names` are headers of the user's own, in lower case, by the section that each opens. A
    text with neither findings nor impression has a section `FREE_TEXT`, which every text policy
    falls back to: all of it but what stands under headers known for something else.
    """
    text = plain_text(raw)
    return report_of_sections(raw, split_plain_sections(text, more_names or {}))


def report_of_sections(raw: str, sections: Mapping[str, str]) -> Report:
    """`sections` with their sentences; `raw` is kept as it is."""
    sentences = {name: split_sentences(section) for name, section in sections.items()}
    return Report(raw=raw, sections=dict(sections), sentences=sentences)
