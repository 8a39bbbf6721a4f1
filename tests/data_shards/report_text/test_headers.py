"""Headers of any usual spelling, at a line's start and within it; and sentences that are none."""

import pytest

from data_shards.report_text.report import parse_plain_report

HEART, CLEAR = "Heart size is normal.", "No acute disease."
BOTH = {"findings": [HEART], "impression": [CLEAR]}


def found(text: str) -> dict[str, list[str]]:
    """The sentences of each section that has any."""
    sections = parse_plain_report(text).sentences.items()
    return {name: list(sentences) for name, sentences in sections if sentences}


SPELLINGS = [
    *("{}: ", "{}:", "{} : ", "{}\uff1a", "{}::", "{}:- ", "{}\n", "{} - ", "{} \u2013 "),
    *("{}\u2014", "{}-", "**{}:** ", "**{}**: ", "__{}__\n", "## {}\n", "### {}: ", "== {} ==\n"),
    *("{}; ", "{} = ", "{} => ", "{} -> ", "{} \u2192 ", "| {} | ", "{}. ", "{}..... ", "{} > "),
    *("{}\n--------\n", "[{}] ", "<{}> ", "> {}: ", "1. {}: ", "A. {}: ", "Chest {}: ", "{}(s): "),
]


@pytest.mark.parametrize(
    "spelling",
    [
        *(each.format for each in SPELLINGS),
        *(lambda name, each=each: each.format(name.upper()) for each in SPELLINGS),
        *(lambda name, each=each: each.format(name.upper()) for each in ("{}, ", "{} ")),
        *(
            lambda name, each=each: each.format(name.lower())
            for each in ("<{}>", "[{}] ", "# {}\n", "*{}*\n")
        ),
        lambda name: f"{name.lower()}: ",
        lambda name: f"{name.lower()}\n",
        lambda name: f"{name} (chest): ",
        lambda name: f"CXR {name.lower()}: ",
        lambda name: f"{name}/Plan: ",
        lambda name: f"{name.upper().replace('I', 'II', 1)}: ",
        lambda name: f"{' '.join(name.upper())}: ",
        lambda name: f"RADIOLOGIST'S 2 VIEW {name.upper()}: ",
        lambda name: f"Radiologist's {name.replace('Impression', 'conclusion')}: ",
    ],
)
def test_any_usual_spelling_of_a_header_counts(spelling: object) -> None:
    assert callable(spelling)
    assert found(f"{spelling('Findings')}{HEART}\n{spelling('Impression')}{CLEAR}") == BOTH


@pytest.mark.parametrize(
    "text",
    [
        f"FINDINGS: {HEART} IMPRESSION: {CLEAR}",
        f"Findings: {HEART} Impression: {CLEAR}",
        f"findings: {HEART} impression: {CLEAR}",
        f"**Findings:** {HEART} **Impression:** {CLEAR}",
        f"FINDINGS - {HEART} IMPRESSION - {CLEAR}",
        f"FINDINGS: {HEART}IMPRESSION: {CLEAR}",
        f"FINDINGS: {HEART} | IMPRESSION: {CLEAR}",
        f"Findings; {HEART} Impression; {CLEAR}",
        f"FINDINGS; {HEART} IMPRESSION; {CLEAR}",
        f"Findings. {HEART} Impression. {CLEAR}",
        f"Findings = {HEART} | Impression = {CLEAR}",
        f"<FINDINGS>{HEART}</FINDINGS><IMPRESSION>{CLEAR}</IMPRESSION>",
    ],
)
def test_headers_count_within_a_line_after_the_end_of_a_sentence(text: str) -> None:
    assert found(text) == BOTH


def test_known_headers_in_capitals_count_anywhere_in_a_line() -> None:
    text = "HISTORY: COPD INDICATION: Cough FINDINGS: Heart normal IMPRESSION: Normal"
    assert found(text) == {
        "history": ["COPD"],
        "indication": ["Cough"],
        "findings": ["Heart normal"],
        "impression": ["Normal"],
    }


@pytest.mark.parametrize(
    "sentence",
    [
        "There are two findings: a nodule and an effusion.",
        "The comparison: none was made.",
        "Seen on the exam at 10:30 by Dr. Roe.",
        "History of cough.",
        "Findings are stable.",
        "Two findings: a nodule and a mass.",
        "Compression: none.",
        "Nothing new among the\nfindings",
        "Comparison is made to ___.",
        "Findings; as described above, are stable.",
        "Unchanged since the prior\nStudy. The heart is normal.",
        "UNCHANGED SINCE THE PRIOR\nREPORT; SEE THERE.",
        "Result > 5 mm is abnormal.",
        "_findings_ are stable.",
        "No change; impression; unclear.",
    ],
)
def test_a_sentence_with_the_words_of_a_header_is_none(sentence: str) -> None:
    told = found(f"FINDINGS: {sentence}\nIMPRESSION: {CLEAR}")["findings"]
    assert " ".join(told) == " ".join(sentence.split())


def test_a_time_in_a_header_is_not_cut() -> None:
    assert found(f"FINDINGS 10:30: {HEART}\nIMPRESSION: {CLEAR}") == {
        "findings": [f"10:30: {HEART}"],
        "impression": [CLEAR],
    }
