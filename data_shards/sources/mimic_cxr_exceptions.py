"""The 54 reports of MIMIC-CXR that its published parser handles by hand.

The table beside this file says where the conclusion of each stands: under a wrong header
(`section`), under none (from character `first` to before `end`), or, with neither, nowhere. It is
that of MIT-LCP/mimic-cxr, `txt/section_parser.py`. LoVT and the official sectioned table leave all
54 out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from data_shards.sources.formats.tables import Row, read_rows

_COLUMNS = ("study_id", "section", "first", "end")

EXCEPTIONS: dict[str, Row] = {
    row["study_id"]: row for row in read_rows(Path(__file__).with_suffix(".csv"), _COLUMNS)
}
WITHOUT_FINDINGS = frozenset(
    study for study, row in EXCEPTIONS.items() if not (row["section"] or row["first"])
)


def conclusion_by_hand(study_id: str, raw: str, sections: Mapping[str, str]) -> str:
    """The conclusion of an exceptional report by its published rule; empty if it has none."""
    row = EXCEPTIONS[study_id]
    if row["first"]:
        return raw[int(row["first"]) : int(row["end"])].strip()
    return sections.get(row["section"], "")
