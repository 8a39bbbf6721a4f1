from collections.abc import Callable

import pytest

from data_shards.records.study import Report
from data_shards.report_text.mimic_cxr_sections import split_sections
from data_shards.report_text.report import parse_plain_report, parse_report
from data_shards.report_text.section_names import section_name

# Every line starts with a blank, blank lines too.
REPORT = "\n".join(
    [
        "                 FINAL REPORT",
        " EXAMINATION:  CHEST (PA AND LAT)",
        " ",
        " INDICATION:  ___ year old woman with cough",
        " ",
        " COMPARISONS:  ___.",
        " ",
        " FINDINGS: ",
        " ",
        " The lungs are clear.  There is no",
        " effusion.",
        " ",
        " IMPRESSION: ",
        " ",
        " No acute process.",
        "",
    ]
)


def test_a_report_is_cut_at_its_headers() -> None:
    assert split_sections(REPORT) == {
        "preamble": "FINAL REPORT",
        "examination": "CHEST (PA AND LAT)",
        "indication": "___ year old woman with cough",
        "comparison": "___.",
        "findings": "The lungs are clear.  There is no\n effusion.",
        "impression": "No acute process.",
    }


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("FINDINGS", "findings"),
        ("CONCLUSION", "impression"),
        ("FINDINGS AND IMPRESSION", "impression"),
        ("CHEST, TWO VIEWS", "findings"),
        ("IMPERSSION", "impression"),
        ("PRELIMINARY FINDINGS", "findings"),
        ("PAST MEDICAL HISTORY", "history"),
        ("PORTABLE SEMI-UPRIGHT RADIOGRAPH", "findings"),
        ("UPRIGHT AP VIEW", "findings"),
        ("RECOMMENDATION(S)", "recommendations"),
        ("WET READ", "wet read"),
        ("NOTE", "note"),
    ],
)
def test_headers_are_normalised_as_by_the_published_parser(header: str, name: str) -> None:
    assert section_name(header) == name


def test_the_last_of_several_findings_counts_unless_it_is_empty() -> None:
    twice = " FINAL REPORT\n FINDINGS: First.\n FINDINGS: Second.\n"
    assert split_sections(twice)["findings"] == "Second."
    titled = " FINAL REPORT\n FINDINGS: First.\n CHEST, PA LATERAL:\n \n COMPARISON: None.\n"
    assert split_sections(titled)["findings"] == "First."


def test_without_findings_and_impression_the_last_paragraph_is_a_section() -> None:
    text = " FINAL REPORT\n HISTORY: Cough.\n \n Lungs are clear.\n \n No effusion.\n"
    assert split_sections(text) == {
        "preamble": "FINAL REPORT",
        "history": "Cough.",
        "last_paragraph": "Lungs are clear.\n \n No effusion.",
    }


def test_a_text_without_headers_is_one_section() -> None:
    assert split_sections(" Lungs are clear.\n") == {"full report": "Lungs are clear."}


def test_headers_in_lower_case_or_in_mid_line_are_text() -> None:
    text = " FINAL REPORT\n FINDINGS: Lungs: clear. HEART: normal.\n Impression: fine.\n"
    assert split_sections(text)["findings"] == "Lungs: clear. HEART: normal.\n Impression: fine."


def test_plain_text_may_start_with_a_header_at_the_margin() -> None:
    report = parse_plain_report("FINDINGS: Clear lungs.\nIMPRESSION: Normal.")
    assert report.sections == {"preamble": "", "findings": "Clear lungs.", "impression": "Normal."}


def test_plain_text_without_main_sections_stays_whole() -> None:
    report = parse_plain_report("Fever for ten days.\n\nCT: bilateral opacities.")
    assert report.sentences == {
        "free text": ("Fever for ten days.", "CT: bilateral opacities."),
    }


def test_sentences_have_the_keys_of_the_sections_and_raw_text_is_kept() -> None:
    report = parse_report(REPORT)
    assert report.raw == REPORT
    assert report.sentences.keys() == report.sections.keys()
    assert report.sentences["findings"] == ("The lungs are clear.", "There is no effusion.")


def test_subheads_of_findings_belong_to_them_and_known_sections_do_not() -> None:
    text = " X\n FINDINGS:\n LUNGS: Clear.\n HEART: Normal.\n NOTIFICATION: Told.\n DOSE: Low.\n"
    assert split_sections(text) == {
        "preamble": "X",
        "findings": "LUNGS: Clear.\n HEART: Normal.",
        "notification": "Told.",
        "dose": "Low.",
    }


def test_replaced_sections_are_kept_where_no_policy_takes_them() -> None:
    text = " X\n FINDINGS: First.\n FINDINGS: Second.\n FINDINGS: Third.\n"
    sections = split_sections(text)
    assert sections["findings"] == "Third."
    assert sections["earlier findings"] == "First.\n\nSecond."


def test_headers_that_the_published_rules_miss_altogether_are_found() -> None:
    report = parse_report("       FINAL REPORT\n Findings: Clear.\n \n Impression: Normal.\n")
    assert report.sentences["findings"] == ("Clear.",)
    assert report.sentences["impression"] == ("Normal.",)
    both = parse_report(" FINAL REPORT\n FINDINGS: Clear.\n Impression: Normal.\n")
    assert both.sentences["findings"] == ("Clear.", "Impression: Normal.")


@pytest.mark.parametrize(
    "title", ["FINAL ADDENDUM", "PRELIMINARY REPORT", "WET READ", "ADDENDUM TO THE CHEST"]
)
@pytest.mark.parametrize("parse", [parse_report, parse_plain_report])
def test_a_title_below_a_rule_is_no_sentence(title: str, parse: Callable[[str], Report]) -> None:
    text = f" FINAL REPORT\n IMPRESSION: Normal.\n {'_' * 78}\n{' ' * 30}{title}\n A nodule.\n"
    assert parse(text).sentences["impression"] == ("Normal.", "A nodule.")


def test_in_a_report_of_capitals_a_line_below_a_rule_is_no_title() -> None:
    report = parse_plain_report(f"IMPRESSION: NORMAL.\n{'_' * 40}\nNO NODULE")
    assert report.sentences["impression"] == ("NORMAL.", "NO NODULE")
