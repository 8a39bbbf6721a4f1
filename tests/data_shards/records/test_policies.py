import pytest

from data_shards.records import policies
from data_shards.records.policies import (
    POLICIES,
    Policy,
    TextPolicy,
    are_words_of,
    select_sentences,
    selected_words,
    word_count,
    words_of_sentences,
)
from data_shards.records.study import Report
from data_shards.report_text.report import parse_plain_report, parse_report

BOTH = Report(
    raw="",
    sections={"impression": "...", "findings": "...", "history": "..."},
    sentences={
        "impression": ("No pneumonia.", "Stable."),
        "findings": ("Lungs are clear.", "Cardiomegaly."),
        "history": ("Cough for days.",),
    },
)


@pytest.mark.parametrize(
    ("policy", "sentences"),
    [
        ("lovt", ("Lungs are clear.", "Cardiomegaly.", "No pneumonia.", "Stable.")),
        ("limitr", ("Lungs are clear.", "Cardiomegaly.", "No pneumonia.", "Stable.")),
        ("impression", ("No pneumonia.", "Stable.")),
        ("gloria", ("No pneumonia.",)),
        ("mgca", ("No pneumonia.", "Lungs are clear.")),
    ],
)
def test_each_policy_takes_its_sections_in_its_order(
    policy: TextPolicy, sentences: tuple[str, ...]
) -> None:
    assert select_sentences(BOTH, policy) == sentences


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_finds_the_text_of_a_table_without_sections(policy: TextPolicy) -> None:
    report = parse_plain_report("A young man with fever. Opacities in both lungs.")
    assert select_sentences(report, policy) == (
        "A young man with fever.",
        "Opacities in both lungs.",
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_takes_a_report_of_mimic_without_findings_and_impression(
    policy: TextPolicy,
) -> None:
    report = parse_report(" FINAL REPORT\n HISTORY: Cough.\n \n Lungs are clear.\n")
    assert select_sentences(report, policy) == ()


def test_words_are_runs_of_letters_and_digits() -> None:
    assert word_count(("No effusion at ___.", "2.5 cm!")) == 6


@pytest.mark.parametrize(
    "removed",
    [
        *("___", "XXXX", "xxxx", "XX-XX-XXXX", "XXXX/XXXX", "[REDACTED]", "[redacted]", "REDACTED"),
        *("[**2101-1-1**]", "[**Hospital 5**]", "[NAME]", "<PERSON>", "<date-shifted>", "{{NAME}}"),
        *("__NAME__", "**NAME**", "[Date removed]", "[LOCATION_1]", "<<DATE>>", "***", "#####"),
        *("<ID>", "{{ID}}", "**NAME[AAA]", "*DATE[Jan 01]", "**ID-NUM"),
    ],
)
def test_what_de_identification_left_is_no_word(removed: str) -> None:
    assert word_count([f"{removed} {removed} {removed}."]) == 0
    assert word_count([f"Compared to {removed}, no change."]) == 4


def test_words_in_brackets_and_of_other_scripts_count() -> None:
    assert word_count(("CHEST (PA AND LAT) [RU] of <5 mm",)) == 8
    assert word_count(("\u5fc3\u5f71\u6b63\u5e38\u3002",)) == 4


@pytest.mark.parametrize("policy", [*POLICIES, "of a later release"])
@pytest.mark.parametrize("sections", [("impression", "findings", "history"), ("free text",), ()])
def test_the_words_of_each_sentence_are_enough_to_count_under_any_policy(
    policy: TextPolicy, sections: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    later = Policy(("history", "impression"), minimum_words_per_sentence=3)
    monkeypatch.setitem(POLICIES, "of a later release", later)
    sentences = ("Clear.", "No effusion at ___.", "Cough for 3 days.")
    report = Report(
        raw="",
        sections=dict.fromkeys(sections, "..."),
        sentences=dict.fromkeys(sections, sentences),
    )
    expected = word_count(select_sentences(report, policy))
    words = words_of_sentences(report)
    assert selected_words({name: (n,) for name, n in words.items()}, policy, studies=1) == [
        expected
    ]
    # Beside another study, which has what this one lacks.
    beside = {name: (words.get(name), (5, 1)) for name in (*words, "findings", "free text")}
    assert selected_words(beside, policy, studies=2)[0] == (0 if not sections else expected)


def test_limits_are_those_of_the_papers() -> None:
    assert {name: policy.minimum_words for name, policy in POLICIES.items()} == {
        "lovt": 3,
        "limitr": 1,
        "impression": 1,
        "gloria": 1,
        "mgca": 3,
        "no_text": 0,
    }


def test_words_counted_by_an_earlier_rule_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report("", {}, {"findings": ("XXXX is well.", "No effusion.")})
    assert are_words_of({"findings": (3, 2)}, report)
    monkeypatch.setattr(policies, "_words_in", lambda _: 7)
    assert are_words_of({"findings": (7, 7)}, report)
    assert are_words_of({"findings": (3, 2)}, report)
    for wrong in ((3, 1), (0, 0), (3,), (7, 2)):
        assert not are_words_of({"findings": wrong}, report)
    assert not are_words_of({"impression": (3, 2)}, report)
    assert not are_words_of({}, report)
