"""The 54 reports of MIMIC-CXR that its published parser handles by hand.

Study ids, section names and character spans are those of MIT-LCP/mimic-cxr,
`txt/section_parser.py`. LoVT and the official sectioned table leave all 54 out.
"""

from __future__ import annotations

from collections.abc import Mapping

# The conclusion stands under a wrong header.
_STUDIES_OF_SECTION: dict[str, tuple[str, ...]] = {
    "recommendations": (
        "50913680",
        "59768032",
        "59067458",
        "59087630",
        "58157373",
        "56482935",
        "58375018",
    ),
    "examination": ("59363654", "53356173", "50743547", "59215320", "55157853"),
    "technique": ("59279892", "53202765", "50808053"),
    "indication": ("57936451", "50058765", "51966317", "55124749", "54365831", "54654948"),
    "note": ("56451190",),
    "history": ("51491012",),
}
SECTION_OF_STUDY: dict[str, str] = {
    study: section for section, studies in _STUDIES_OF_SECTION.items() for study in studies
}

# The conclusion stands under no header: its first and last character + 1 in the file.
SPAN_OF_STUDY: dict[str, tuple[int, int]] = {
    "50525523": (201, 349),
    "57564132": (233, 554),
    "59982525": (313, 717),
    "53488209": (149, 475),
    "54875119": (234, 988),
    "50196495": (59, 399),
    "56579911": (59, 218),
    "52648681": (292, 631),
    "59889364": (172, 453),
    "53514462": (73, 377),
    "59505494": (59, 450),
    "53182247": (59, 412),
    "51410602": (47, 320),
    "56412866": (522, 822),
    "54986978": (59, 306),
    "59003148": (262, 505),
    "57150433": (61, 394),
    "56760320": (219, 457),
    "59562049": (158, 348),
    "52674888": (145, 296),
    "55258338": (192, 568),
    "59330497": (140, 655),
    "52119491": (179, 454),
}

# Nothing about the images anywhere in the report.
WITHOUT_FINDINGS: frozenset[str] = frozenset(
    {
        "58235663",
        "50798377",
        "54168089",
        "53071062",
        "56724958",
        "54231141",
        "53607029",
        "52035334",
    }
)

EXCEPTIONS: frozenset[str] = (
    frozenset(SECTION_OF_STUDY) | frozenset(SPAN_OF_STUDY) | (WITHOUT_FINDINGS)
)


def conclusion_by_hand(study_id: str, raw: str, sections: Mapping[str, str]) -> str:
    """The conclusion of an exceptional report by its published rule; empty if it has none."""
    assert study_id in EXCEPTIONS
    if study_id in SPAN_OF_STUDY:
        start, end = SPAN_OF_STUDY[study_id]
        return raw[start:end].strip()
    return sections.get(SECTION_OF_STUDY.get(study_id, ""), "")
