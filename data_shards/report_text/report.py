"""A `Report` made of raw text: plain text, its sections cut at their headers, and sentences."""

from __future__ import annotations

from collections.abc import Mapping

from data_shards.nothing import says_nothing
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


def parse_columns(
    raw: str, texts: Mapping[str, str], *, more_names: Mapping[str, str] | None = None
) -> Report:
    """The sections and sentences of texts that a table gives by the name of their section.

    A header in such a text counts as in `parse_plain_report`: it may repeat the column's name, or
    open another section. Texts of one section are joined, once where they are the same.
    """
    sections: dict[str, str] = {}
    for column, text in texts.items():
        plain = f"{column}: {plain_text(text)}"
        for name, part in split_plain_sections(plain, more_names or {}).items():
            name = column if name == FREE_TEXT else name
            if part and part not in sections.get(name, ""):
                sections[name] = f"{sections[name]}\n\n{part}" if name in sections else part
    return report_of_sections(raw, sections)


def report_of_sections(raw: str, sections: Mapping[str, str]) -> Report:
    """`sections` with their sentences; `raw` is kept as it is.

    A section of nothing but a word for nothing is what a program wrote for an empty cell.
    """
    told = {name: "" if says_nothing(text.strip(" .")) else text for name, text in sections.items()}
    sentences = {name: split_sentences(section) for name, section in told.items()}
    return Report(raw=raw, sections=told, sentences=sentences)
