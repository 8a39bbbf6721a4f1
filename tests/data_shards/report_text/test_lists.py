"""Lists of any usual mark are cut into their items, and numbers of a sentence stay in it."""

import pytest

from data_shards.report_text.sentences import split_sentences


@pytest.mark.parametrize(
    "marks",
    [
        *(("1.", "2."), ("1)", "2)"), ("(1)", "(2)"), ("1:", "2:"), ("[1]", "[2]"), ("#1", "#2")),
        *(("1 -", "2 -"), ("1-", "2-"), ("1/", "2/"), ("1.)", "2.)"), ("a)", "b)"), ("(a)", "(b)")),
        *(("a.", "b."), ("A.", "B."), ("i.", "ii."), ("I)", "II)"), ("(i)", "(ii)")),
        *((mark, mark) for mark in "-\u2013\u2014\u00b7\u2022*+>o\u25cf\u25aa\uf0b7\u2192\u2713"),
        *(("\u2460", "\u2461"), ("[x]", "[ ]"), ("\u2610", "\u2611"), ("\u2212", "\u2212")),
    ],
)
@pytest.mark.parametrize("items", [("heart normal", "no mass"), ("Heart normal.", "No mass.")])
def test_lines_with_the_marks_of_a_list_are_its_items(
    marks: tuple[str, str], items: tuple[str, str]
) -> None:
    lines = [f"{mark} {item}" for mark, item in zip(marks, items, strict=True)]
    assert split_sentences("\n".join(lines)) == items
    assert split_sentences("Seen are:\n" + "\n".join(lines)) == ("Seen are:", *items)


@pytest.mark.parametrize(
    "text",
    [
        "1. Heart normal 2. No mass",
        "1) Heart normal 2) No mass",
        "(1) Heart normal (2) No mass",
        "1: Heart normal 2: No mass",
        "#1 Heart normal #2 No mass",
        "a) Heart normal b) No mass",
        "\u2022 Heart normal \u2022 No mass",
        "- Heart normal - No mass",
        "-Heart normal\n-No mass",
        "1.Heart normal\n2.No mass",
        "Heart normal\nNo mass",
    ],
)
def test_lists_within_a_line_and_without_blanks(text: str) -> None:
    assert split_sentences(text) == ("Heart normal", "No mass")


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Ribs 3 through\n1. No mass.", ("Ribs 3 through 1.", "No mass.")),
        ("Ribs 3, 4 and\n5. No mass.", ("Ribs 3, 4 and 5.", "No mass.")),
        ("1. Ribs 1 and 2. No mass.\n2. Edema.", ("Ribs 1 and 2.", "No mass.", "Edema.")),
        ("1. Tube at T\n2. No mass.\n2. Edema.", ("Tube at T 2.", "No mass.", "Edema.")),
        ("The tube ends at T. 5. No mass.", ("The tube ends at T. 5.", "No mass.")),
        ("A nodule of\n2.5 cm. 1.4 cm mass.", ("A nodule of 2.5 cm.", "1.4 cm mass.")),
        ("3.9 cm mass.", ("3.9 cm mass.",)),
        ("Mild effusion\n- unchanged since.", ("Mild effusion - unchanged since.",)),
        ("Nodules are seen.\n> 5 mm in size.", ("Nodules are seen.", "> 5 mm in size.")),
        ("Tip in the distal\nSVC", ("Tip in the distal SVC",)),
        ("Seen with\nDr. Roe today", ("Seen with Dr. Roe today",)),
    ],
)
def test_numbers_and_dashes_of_a_sentence_stay(text: str, sentences: tuple[str, ...]) -> None:
    assert split_sentences(text) == sentences


def test_a_list_may_be_counted_badly_or_go_on_after_a_blank_line() -> None:
    assert split_sentences("1. Clear.\n\n2. No mass. 2. Edema. 4. Old rib.") == (
        "Clear.",
        "No mass.",
        "Edema.",
        "Old rib.",
    )
