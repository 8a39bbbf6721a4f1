import re
import tarfile
import time
import xml.etree.ElementTree as ElementTree

import pytest

from data_shards.report_text.sentences import split_sentences
from tests.paths import ROOT

OPENI = ROOT.parent / "shared" / "data" / "openi" / "NLMCXR_reports.tgz"


@pytest.mark.parametrize(
    ("section", "sentences"),
    [
        pytest.param(
            "There is a small left\n pleural effusion. No\n pneumothorax.",
            ("There is a small left pleural effusion.", "No pneumothorax."),
            id="wrapped lines",
        ),
        pytest.param(
            "1. Stable cardiomegaly.\n 2. New opacity\n at the base\n 3. No edema.",
            ("Stable cardiomegaly.", "New opacity at the base", "No edema."),
            id="list over lines",
        ),
        pytest.param(
            "1. No acute process. 2. Old fracture. 3) Scoliosis. 4.Edema.",
            ("No acute process.", "Old fracture.", "Scoliosis.", "Edema."),
            id="list in one line",
        ),
        pytest.param(
            "Fractures of ribs 3 through\n 9. No effusion.",
            ("Fractures of ribs 3 through 9.", "No effusion."),
            id="a wrapped number is no list number",
        ),
        pytest.param(
            "1. A 2.5 cm nodule. 2. 1.4 cm mass.",
            ("A 2.5 cm nodule.", "1.4 cm mass."),
            id="decimals",
        ),
        pytest.param(
            "Discussed with Dr. ___ by Dr. Roe at 3:15 p.m. on ___ by phone. Done at 9 a.m. ___.",
            (
                "Discussed with Dr. ___ by Dr. Roe at 3:15 p.m. on ___ by phone.",
                "Done at 9 a.m. ___.",
            ),
            id="titles and times",
        ),
        pytest.param(
            "Seen at 3 p.m. The tube is high. History of MS. No change.",
            ("Seen at 3 p.m.", "The tube is high.", "History of MS.", "No change."),
            id="times and MS may end a sentence",
        ),
        pytest.param(
            "Atelectasis vs. pneumonia, e.g. viral. Image No. 3 shows it. Pain? No. Stable.",
            (
                "Atelectasis vs. pneumonia, e.g. viral.",
                "Image No. 3 shows it.",
                "Pain?",
                "No.",
                "Stable.",
            ),
            id="abbreviations",
        ),
        pytest.param(
            "Tip is 4 cm. above the carina. The gap is 4 cm. Unchanged.",
            ("Tip is 4 cm. above the carina.", "The gap is 4 cm.", "Unchanged."),
            id="units",
        ),
        pytest.param(
            "As compared to ___. ___. No change.",
            ("As compared to ___.", "No change."),
            id="removed names stay, sentences without letters go",
        ),
        pytest.param(
            "Heart is normal.No effusion.Lungs clear.",
            ("Heart is normal.", "No effusion.", "Lungs clear."),
            id="no blank after the full stop",
        ),
        pytest.param(
            f"Correction of the side\n {'_' * 78}\n                  FINAL REPORT\n Lungs clear.",
            ("Correction of the side", "Lungs clear."),
            id="an addendum ends at its rule",
        ),
        pytest.param(
            "AP chest compared to ___\n \n Lungs are clear",
            ("AP chest compared to ___", "Lungs are clear"),
            id="a blank line ends a sentence",
        ),
        pytest.param("", (), id="empty"),
    ],
)
def test_sentences_of(section: str, sentences: tuple[str, ...]) -> None:
    assert split_sentences(section) == sentences


@pytest.mark.skipif(not OPENI.is_file(), reason="the OpenI reports are not beside the checkout")
def test_real_reports_are_split_at_once_and_lose_no_words() -> None:
    sections = _openi_sections()
    assert len(sections) > 10_000
    started = time.perf_counter()
    split = [split_sentences(section) for section in sections]
    microseconds_per_report = (time.perf_counter() - started) / 3955 * 1e6
    assert microseconds_per_report < 1000

    inner_end = re.compile(r"(?<!\bDr)(?<!p\.m)(?<!a\.m)[a-z]{3}\. [A-Z][a-z]")
    for section, sentences in zip(sections, split, strict=True):
        kept = _words(" ".join(sentences))
        # List numbers, and sentences of numbers alone, are all that may go.
        assert [w for w in _words(section) if not w.isdigit()] == [
            w for w in kept if not w.isdigit()
        ]
        for sentence in sentences:
            assert not re.match(r"\d{1,2}\.\s", sentence)
            assert inner_end.search(sentence) is None, sentence


def _openi_sections() -> list[str]:
    with tarfile.open(OPENI) as archive:
        files = [archive.extractfile(each) for each in archive if each.name.endswith(".xml")]
        documents = [ElementTree.fromstring(file.read()) for file in files if file is not None]
    return [
        each.text for document in documents for each in document.iter("AbstractText") if each.text
    ]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)
