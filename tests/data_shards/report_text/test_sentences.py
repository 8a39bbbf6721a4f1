import textwrap
import time

import numpy as np
import pytest

from data_shards.report_text.sentences import split_sentences


@pytest.mark.parametrize(
    ("section", "sentences"),
    [
        pytest.param(
            "There is a small left\n pleural effusion. No\n pneumothorax.",
            ("There is a small left pleural effusion.", "No pneumothorax."),
            id="wrapped lines",
        ),
        pytest.param(
            "Fractures of ribs 5, 6 and 7. 8. rib intact. There are\n2. small nodules.",
            ("Fractures of ribs 5, 6 and 7.", "8. rib intact.", "There are 2. small nodules."),
            id="numbers that are no list's",
        ),
        pytest.param(
            "Seen at Mt. Sinai with CAD vers. 2.0. Stable.",
            ("Seen at Mt. Sinai with CAD vers. 2.0.", "Stable."),
            id="abbreviated names and versions",
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
            "Heart is normal.No effusion.Lungs clear. Bones:normal.Pleura:normal.",
            ("Heart is normal.", "No effusion.", "Lungs clear.", "Bones:normal.", "Pleura:normal."),
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
        pytest.param(
            "Opacity at the base ? pneumonia. ? early. Mass (?) seen. ?? TB. Pain? No.",
            (
                "Opacity at the base ? pneumonia.",
                "? early.",
                "Mass (?) seen.",
                "?? TB.",
                "Pain?",
                "No.",
            ),
            id="a question mark after a blank opens what follows",
        ),
        pytest.param(
            "The ant. and post. ribs. The sup. part and lat. view. Resp. motion, prob. small.",
            (
                "The ant. and post. ribs.",
                "The sup. part and lat. view.",
                "Resp. motion, prob. small.",
            ),
            id="a short word before a small letter is an abbreviation",
        ),
        pytest.param(
            "Lungs are clear. no effusion. None. chest pain. COPD. stable.",
            ("Lungs are clear.", "no effusion.", "None.", "chest pain.", "COPD.", "stable."),
            id="a capital forgotten after a word",
        ),
        pytest.param(
            "the lung is clear. no pain seen. the ant. rib is 4 cm. above. lat. view shows it.",
            (
                "the lung is clear.",
                "no pain seen.",
                "the ant. rib is 4 cm. above.",
                "lat. view shows it.",
            ),
            id="all in small letters",
        ),
        pytest.param(
            "In the L. lower lobe and R. Base. By Dr. A. B. Smith. At T. 5. Done by J. Roe.",
            (
                "In the L. lower lobe and R. Base.",
                "By Dr. A. B. Smith.",
                "At T. 5.",
                "Done by J. Roe.",
            ),
            id="single capitals",
        ),
        pytest.param(
            "Since Jan. 5 and Sept. 3, ext. 5. It is ca. 5 mm. See fig. 2, seg. 3. In Jan. Same.",
            (
                "Since Jan. 5 and Sept. 3, ext. 5.",
                "It is ca. 5 mm.",
                "See fig. 2, seg. 3.",
                "In Jan.",
                "Same.",
            ),
            id="what stands before numbers",
        ),
        pytest.param(
            "No pneumo-\n thorax. Right-\nsided mass, follow-\nup. "
            "An X-\nray at T1-\n2 of Mid-\nApril.",
            ("No pneumothorax.", "Right-sided mass, follow-up.", "An X-ray at T1-2 of Mid-April."),
            id="words cut at a line's end",
        ),
        pytest.param(
            "\u5fc3\u5f71\u6b63\u5e38\u3002\u65e0\u79ef\u6db2\uff01\u6e05\u6670\uff1f",
            ("\u5fc3\u5f71\u6b63\u5e38\u3002", "\u65e0\u79ef\u6db2\uff01", "\u6e05\u6670\uff1f"),
            id="Chinese",
        ),
        pytest.param(
            "He says \u201cNo mass.\u201d Normal \u00abas before.\u00bb "
            "Clear\u2026 Heart\u2026 normal.",
            (
                "He says \u201cNo mass.\u201d",
                "Normal \u00abas before.\u00bb",
                "Clear\u2026",
                "Heart\u2026 normal.",
            ),
            id="other quotes and an ellipsis",
        ),
        pytest.param(
            "Clear.\n-----\nHeart normal\n*** Final Report ***\nNo mass\n=====\nSEEN BY US\nStable",
            ("Clear.", "Heart normal", "No mass", "Stable"),
            id="rules and titles",
        ),
        pytest.param("", (), id="empty"),
    ],
)
def test_sentences_of(section: str, sentences: tuple[str, ...]) -> None:
    assert split_sentences(section) == sentences


SENTENCES = (
    "The heart is normal in size.",
    "No pneumothorax or pleural effusion.",
    "There is a 2.5 cm nodule in the right upper lobe.",
    "XXXX XXXX are grossly clear, within the limits of a portable examination.",
    "Findings were discussed with Dr. XXXX by telephone at 3:15 p.m. on XXXX.",
    "Degenerative changes of the thoracic spine, e.g. small osteophytes at T8.",
    "Calcified granuloma in the left lower lobe measures 0.4 x 1.2 cm.",
    "Is there an infiltrate behind the heart?",
    "Atelectasis vs. early pneumonia at the left base.",
    "Old fractures of ribs 3 through 9.",
    "The tube ends 4.5 cm. above the carina and is unchanged since 9 a.m. today.",
    "Follow up is recommended (in 6 weeks).",
)


def reports() -> list[tuple[str, tuple[str, ...]]]:
    """4,000 sections with their sentences, laid out in the ways of radiologists."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(4000):
        chosen = tuple(random.choice(SENTENCES, random.integers(1, 9), replace=False).tolist())
        numbered = [f"{number}. {sentence}" for number, sentence in enumerate(chosen, 1)]
        layouts = (
            " ".join(chosen),
            "  ".join(chosen),
            textwrap.fill(" ".join(chosen), 79),
            "\n".join(chosen),
            " ".join(numbered),
            "\n".join(textwrap.fill(line, 40, break_on_hyphens=False) for line in numbered),
            "\n\n".join(f" {textwrap.fill(line, 79)}" for line in chosen),
        )
        made.append((layouts[random.integers(len(layouts))], chosen))
    return made


def test_reports_of_any_layout_are_split_at_once_into_their_sentences() -> None:
    sections = reports()
    started = time.process_time()
    split = [split_sentences(section) for section, _ in sections]
    microseconds_a_report = (time.process_time() - started) / len(sections) * 1e6
    assert split == [sentences for _, sentences in sections]
    # Some 20 times what it takes: a pattern that tries all ways to match would take far more.
    assert microseconds_a_report < 1000
