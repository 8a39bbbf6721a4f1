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
        ("<ul><li>Clear</li></ul>", "\n\n\u2022 Clear\n\n"),
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
        "R&D; AT&T at 5 % of C7_x",
        "\\ud800",
    ],
)
def test_what_nobody_escaped_stays(text: str) -> None:
    assert plain_text(text) == text


def test_raw_text_is_kept_as_it_came() -> None:
    raw = "\ufeffFINDINGS: Clear.\r\nIMPRESSION: Normal."
    assert parse_plain_report(raw).raw == raw
