"""What a page on the reports of a shard folder says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from data_shards.building.settings import ShardsConfig
from data_shards.checking.text_report import report_texts
from data_shards.errors import InputError
from tests.data_shards.building.whole import build_shards

LONG = " ".join(f"Opacity number {n} is small." for n in range(8))


@pytest.fixture
def folder(make_config: Callable[..., ShardsConfig], archive: Path) -> Path:
    table = archive / "pairs.csv"
    text = table.read_text()
    for patient, report in (
        ("Patient 0 is well.", "INDICATION: Cough. FINDINGS: Clear lungs. IMPRESSION: Normal."),
        ("Patient 2 is well.", f"FINDINGS: {LONG}"),
        ("Patient 4 is well. No effusion in study", "TECHNIQUE: PA view number"),
    ):
        text = text.replace(patient, report)
    table.write_text(text)
    config = make_config()
    build_shards(config)
    return config.output


def test_sections_lengths_and_what_is_left_are_told(folder: Path) -> None:
    told = report_texts(folder, tokenizer=None, max_tokens=512, examples=1).splitlines()
    assert told[0] == f"28 studies in {folder}, 0 without a report"
    assert "  findings: 4, 20" in told
    assert "  indication: 2, 2" in told
    assert any(line.startswith("  lovt: 26 kept, 2 with too few words;") for line in told)
    left = told.index("sentences that no text policy takes, by section, with the first:")
    assert any(line.startswith("  technique: PA view number ") for line in told[left:])
    assert told[-2] == "reports of which no text policy takes anything:"
    assert ": TECHNIQUE: PA view number " in told[-1]


def test_an_example_that_reports_repeat_is_shown_once(folder: Path) -> None:
    told = report_texts(folder, tokenizer=None, max_tokens=512, examples=3).splitlines()
    start = next(n for n, line in enumerate(told) if line.startswith("  indication: Cough"))
    assert not told[start + 1].strip().startswith("Cough")


def test_tokens_are_held_against_the_limit(folder: Path, tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    told = report_texts(folder, tokenizer=tmp_path, max_tokens=30, examples=1)
    # 8 sentences of 6 tokens, one of 6 more and two marks: four sentences and the marks fit.
    line = next(each for each in told.splitlines() if each.startswith("  limitr:"))
    assert "most 56" in line
    assert line.endswith("2 too long, which lose 10 sentences")
    assert "tokens (limit 30) a report" in told
    with pytest.raises(InputError, match="no such file: name a tokenizer"):
        report_texts(folder, tokenizer=tmp_path / "none.json", max_tokens=30, examples=1)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InputError, match="not a tokenizer"):
        report_texts(folder, tokenizer=tmp_path / "bad.json", max_tokens=30, examples=1)
