"""Sections of texts of any layout: their names in many languages, and what belongs to them."""

import time

import pytest

from data_shards.records.policies import select_sentences
from data_shards.report_text.report import parse_columns, parse_plain_report

HEART, CLEAR = "Heart size is normal.", "No acute disease."
BOTH = {"findings": [HEART], "impression": [CLEAR]}


def found(text: str, **more_names: str) -> dict[str, list[str]]:
    """The sentences of each section that has any."""
    report = parse_plain_report(text, more_names=more_names)
    return {name: list(sentences) for name, sentences in report.sentences.items() if sentences}


@pytest.mark.parametrize(
    ("findings", "impression"),
    [
        ("REPORT", "OPINION"),
        ("DESCRIPTION", "SUMMARY"),
        ("Result", "Assessment"),
        ("BEFUND", "BEURTEILUNG"),
        ("R\u00c9SULTAT ", "CONCLUSION "),
        ("Hallazgos", "Impresi\u00f3n diagn\u00f3stica"),
        ("\u68c0\u67e5\u6240\u89c1", "\u8bca\u65ad\u610f\u89c1"),
        ("Bulgular", "Sonu\u00e7"),
        ("\uc18c\uacac", "\uacb0\ub860"),
        ("FINDINGS", "IMPRESION"),
        ("Findings", "Concl."),
    ],
)
def test_other_names_and_languages(findings: str, impression: str) -> None:
    assert found(f"{findings}: {HEART}\n{impression}: {CLEAR}") == BOTH


def test_names_can_be_added_and_come_first() -> None:
    text = f"TOMOGRAPHY: {HEART}\nImpression: {CLEAR}\nSUMMARY: Told."
    names = {"tomography": "findings", "summary": "recommendations"}
    assert found(text, **names) == {**BOTH, "recommendations": ["Told."]}


@pytest.mark.parametrize("before", ["HISTORY: Cough.\nFINDINGS:\n", "FINDINGS:\n", "Findings:\n"])
@pytest.mark.parametrize(
    ("lines", "sentences"),
    [
        (
            "LUNGS: Clear.\nCHEST WALL:\nNormal.\n",
            ["LUNGS: Clear.", "CHEST WALL: Normal."],
        ),
        (
            "Lungs: clear\nHeart: normal\nNote: rotated\n",
            ["Lungs: clear", "Heart: normal", "Note: rotated"],
        ),
    ],
)
def test_subheads_belong_to_their_section(before: str, lines: str, sentences: list[str]) -> None:
    told = found(f"{before}{lines}IMPRESSION:\nCHEST: {CLEAR}\nABDOMEN: Normal.")
    assert told["findings"] == sentences
    assert told["impression"] == [f"CHEST: {CLEAR}", "ABDOMEN: Normal."]


def test_several_findings_are_joined() -> None:
    told = found(f"CT HEAD FINDINGS: No bleeding.\nCHEST FINDINGS: {HEART}\nIMPRESSION: {CLEAR}")
    assert told == {"findings": ["No bleeding.", HEART], "impression": [CLEAR]}


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("LUNGS: Clear.\nHEART: Normal.\n", ["LUNGS: Clear.", "HEART: Normal."]),
        (f"Two views of the chest. {HEART}\n\n", ["Two views of the chest.", HEART]),
    ],
)
def test_what_stands_under_no_header_is_findings_where_only_an_impression_is_headed(
    text: str, findings: list[str]
) -> None:
    assert found(f"{text}IMPRESSION: {CLEAR}") == {"findings": findings, "impression": [CLEAR]}


@pytest.mark.parametrize("lead", ["HISTORY: Cough.", "EXAM: CHEST\nCOMPARISON:\n\nNone."])
def test_paragraphs_between_what_leads_and_the_impression_are_findings(lead: str) -> None:
    told = found(f"{lead}\n\n{HEART}\n\n{CLEAR}\n\nIMPRESSION: {CLEAR}")
    assert told["findings"] == [HEART, CLEAR]
    assert "findings" not in found(f"{lead}\n\nPortable\n\nIMPRESSION: {CLEAR}")


def test_a_title_before_the_impression_is_no_finding() -> None:
    told = found(f"CHEST X-RAY\nDATE OF EXAM: today\nIMPRESSION: {CLEAR}")
    assert told == {
        "preamble": ["CHEST X-RAY"],
        "signature": ["DATE OF EXAM: today"],
        "impression": [CLEAR],
    }


@pytest.mark.parametrize(
    "text",
    [
        f"INDICATION: Cough.\nTECHNIQUE: Two views.\n{HEART} {CLEAR}",
        f"INDICATION: Cough\nTECHNIQUE: Two views\n{HEART} {CLEAR}",
        f"INDICATION: Cough.\n\nTECHNIQUE:\nTwo views.\n\n{HEART} {CLEAR}",
        f"INDICATION: Cough. TECHNIQUE: Two views. {HEART} {CLEAR}",
        f"{HEART}\nINDICATION: Cough.\nTECHNIQUE: Two views.\nCT: {CLEAR}",
        f"TECHNIQUE: Two views.\n{HEART} {CLEAR}\nSigned by: ___",
    ],
)
def test_free_text_is_what_stands_under_no_known_header(text: str) -> None:
    report = parse_plain_report(text)
    chosen = [each.removeprefix("CT: ") for each in select_sentences(report, "lovt")]
    assert chosen == [HEART, CLEAR]


def test_a_history_alone_is_nothing_to_train_on() -> None:
    report = parse_plain_report("HISTORY: Cough for 3 days.")
    assert report.sentences == {"history": ("Cough for 3 days.",)}
    assert select_sentences(report, "lovt") == ()


def test_a_misspelled_indication_is_no_impression() -> None:
    assert found(f"NDICATION: Cough.\nFINDINGS: {HEART}") == {
        "indication": ["Cough."],
        "findings": [HEART],
    }


@pytest.mark.parametrize(
    "signature",
    [
        "\n\nDictated by: ___\nElectronically signed by ___ on ___",
        "\nTranscribed by ABC on 5/5/2020",
        "\nAttending: Dr. Roe\nDate: 5/5/2020",
        "\nSIGNED BY: ROE, MD",
        " Electronically signed by: ___ 5/5/2020",
        "\nThis report was electronically signed by Dr. J. Roe on 5/5/2020.",
        "\nReviewed by: Dr. Roe\nTranscriptionist: ABC",
        "\nI, Dr. Roe, have personally reviewed the images and agree with the above.",
    ],
)
def test_signatures_are_a_section_of_their_own(signature: str) -> None:
    told = found(f"FINDINGS: {HEART}\nIMPRESSION: {CLEAR}{signature}\nStable.")
    signed = told.pop("signature")
    assert " ".join(signed) == " ".join(signature.split())
    assert told == {"findings": [HEART], "impression": [CLEAR, "Stable."]}


def test_codes_of_a_bill_are_no_part_of_the_impression() -> None:
    told = found(f"IMPRESSION: {CLEAR}\nCPT CODE: 71020 for two views\nBILLING CODE: a1")
    assert told["impression"] == [CLEAR]


def test_a_date_before_headers_in_one_line_swallows_nothing() -> None:
    told = found(f"Date: today. FINDINGS: {HEART} IMPRESSION: {CLEAR}")
    assert told == {"preamble": ["Date: today."], **BOTH}


@pytest.mark.parametrize(
    "texts",
    [
        {"findings": HEART, "impression": CLEAR},
        {"findings": f"FINDINGS: {HEART}", "impression": f"Impression:\n{CLEAR}"},
        {"findings": f"{HEART}\nIMPRESSION: {CLEAR}", "impression": CLEAR},
        {"findings": f"{HEART}<br>Impression: {CLEAR}", "impression": ""},
    ],
)
def test_columns_may_repeat_their_header_or_hold_another_section(texts: dict[str, str]) -> None:
    report = parse_columns("", texts)
    assert report.sections == {"findings": HEART, "impression": CLEAR}


def test_views_in_a_column_of_impressions_are_no_findings() -> None:
    text = f"CHEST: {CLEAR}\nABDOMEN: Normal."
    assert parse_columns("", {"impression": text}).sections == {"impression": text}


@pytest.mark.parametrize("part", ["a: ", "FINDINGS: ", "? ", "\\n", "ABC:\n", "1) ", "- a\n", " "])
def test_no_text_takes_long(part: str) -> None:
    started = time.process_time()
    parse_plain_report(f"FINDINGS: {part * 4000}x")
    # Some ten times what it takes; a pattern that looks ahead to the end takes far more.
    assert time.process_time() - started < 2


def test_a_section_of_a_word_for_nothing_is_empty() -> None:
    """What programs write that put columns together."""
    report = parse_plain_report("FINDINGS: The lungs are clear. None seen.\nIMPRESSION: nan.")
    assert report.sentences["findings"] == ("The lungs are clear.", "None seen.")
    assert report.sentences["impression"] == ()


@pytest.mark.parametrize(
    "line",
    [
        "Reported on the prior CT, it is stable.",
        "Verified at lateral view is a nodule of 5 mm.",
        "Reader: nodule in the left lung, 5 mm.",
        "Time of imaging: a large pneumothorax is seen.",
    ],
)
def test_sentences_that_begin_like_a_signature_stay_where_they_are(line: str) -> None:
    told = found(f"FINDINGS: {HEART}\n{line}\nIMPRESSION: {CLEAR}")
    assert "signature" not in told
    assert line.rpartition(": ")[2].rstrip(".") in " ".join(told["findings"])


@pytest.mark.parametrize(
    "line", ["Electronically signed: John Smith MD 1/2/2020", "Electronically signed 1/2/2020"]
)
def test_a_signature_needs_no_by(line: str) -> None:
    assert found(f"FINDINGS: {HEART}\nIMPRESSION: {CLEAR}\n{line}")["signature"] == [line]
