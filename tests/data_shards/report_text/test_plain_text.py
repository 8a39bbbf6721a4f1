"""Text that went through other programs comes back as it was meant."""

import pytest

from data_shards.report_text.plain_text import plain_text
from data_shards.report_text.report import parse_plain_report

TEXT = "FINDINGS: Heart is normal.{}IMPRESSION: No acute disease."


@pytest.mark.parametrize(
    "line_end",
    [
        "\n",
        "\r",
        "\r\n",
        "\r\r\n",
        "\v",
        "\f",
        "\x1e",
        "\x85",
        "\u2028",
        "\u2029",
        "\\n",
        "\\r\\n",
        "\\\\n",
        "<br>",
        "<BR />",
        "</p><p>",
        "&lt;br/&gt;",
        "&#10;",
        "&amp;#10;",
        "_x000D_\n",
        "\\.br\\",
        "\\X0D\\\\X0A\\",
        " \\par ",
        "~",
        "%0D%0A",
        "\n\u00a0",
        "\n\u3000\u200b",
        "\n\ufeff",
        "\n\t",
        "\x00\n",
    ],
    ids=repr,
)
def test_line_ends_and_blanks_of_any_kind_hide_no_header(line_end: str) -> None:
    sentences = parse_plain_report(TEXT.format(line_end)).sentences
    assert sentences["findings"] == ("Heart is normal.",)
    assert sentences["impression"] == ("No acute disease.",)


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("\ufeffFIND\u00adINGS:\u00a0x\u200e", "FINDINGS: x"),
        ("A nodule &lt;5&nbsp;mm &amp; <b>clear</b> lungs", "A nodule <5 mm & clear lungs"),
        ("There is no\\nfocal opacity.\\nClear.", "There is no\nfocal opacity.\nClear."),
        ("pneumo\u00ad\n thorax", "pneumothorax"),
        ('it isn\\u2019t \\"new\\"\\n', 'it isn\u2019t "new"\n'),
        ("cafe\u0301", "caf\u00e9"),
        ("\ufb01brosis, \uff23\uff34 \uff15 mm\uff1a", "fibrosis, CT 5 mm\uff1a"),
        ("L\\T\\R: <5\\R\\6 mm\\F\\", "L&R: <5~6 mm|"),
        ("<ul><li>Clear</li></ul>", "\n\n\u2022 Clear\n\n"),
        ("See <a href=\"x.html\" title='prior'>the <i>prior</i></a> film.", "See the prior film."),
        ("A <font color=red size=2>new</font> opacity<img src='x.png'/>.", "A new opacity."),
        ("<table border=1><tr><td nowrap>Heart</td><td>normal</td></tr>", "\n\n Heart  normal \n"),
        ('<p class="MsoNormal">Clear<o:p></o:p></p>', "\nClear\n"),
        ('in <st1:place w:st="on">Boston</st1:place> now', "in Boston now"),
        ("<style>p.a {color: red}</style>Clear<!-- checked\nby x -->.", "Clear."),
        ("<?xml version='1.0'?><!DOCTYPE html>Clear", "\n\nClear"),
        ("<custom key='1'>Clear</custom>", "\nClear\n"),
        ("Heart&nbsp normal, nodule &lt 5 mm", "Heart  normal, nodule < 5 mm"),
    ],
)
def test_what_other_programs_wrote_is_read(raw: str, plain: str) -> None:
    assert plain_text(raw) == plain


@pytest.mark.parametrize(
    "text",
    [
        " FINAL REPORT\n \n FINDINGS:  No change since ___.\n",
        "r\\o effusion, y\\no",
        "A nodule <5 mm and >3 mm, <NAME>",
        "An effusion <a third of the hemithorax, previously >half of it",
        "Pressure <b and >a, <p 5>, <i 3 and > 2>",
        "Sent to <j.smith@example.org>, see <https://example.org/a?b=c>, <see below>, <DATE 1>",
        "T<s and a<=b, c>=d; <td",
        "Size <!-- 5 mm",
        "R&D; AT&T at 5 % of C7_x",
        "\\ud800",
    ],
)
def test_what_nobody_escaped_stays(text: str) -> None:
    assert plain_text(text) == text


def test_raw_text_is_kept_as_it_came() -> None:
    raw = "\ufeffFINDINGS: Clear.\r\nIMPRESSION: Normal."
    assert parse_plain_report(raw).raw == raw


def test_a_tag_within_a_sentence_ends_none_and_loses_no_word() -> None:
    for raw in (
        "FINDINGS: The heart is<br>not enlarged, see <a href='x'>prior film</a>. No effusion.",
        "FINDINGS: The <b>heart</b> is not enlarged,<br/>\nsee prior film.<br>No effusion.",
        "FINDINGS: The heart is not &lt;i&gt;enlarged&lt;/i&gt;, see prior film.<p>No effusion.",
    ):
        assert parse_plain_report(raw).sentences["findings"] == (
            "The heart is not enlarged, see prior film.",
            "No effusion.",
        )
    kept = "An effusion <a third of the hemithorax, previously >half of it."
    assert parse_plain_report(f"FINDINGS: {kept}").sentences["findings"] == (kept,)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ["<!--", "<style>", "<a ", "<a b=", "</a", "&", "<p\n", "<br> "])
def test_text_made_to_be_slow_is_not(piece: str) -> None:
    plain_text(piece * 60_000)
