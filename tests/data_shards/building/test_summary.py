"""What a build says at its end about the reports."""

import csv
from collections.abc import Callable
from pathlib import Path

from data_shards.building.build import build
from data_shards.building.settings import ShardsConfig
from data_shards.building.summary import count_reports
from data_shards.records.indexed_samples import IndexedSample, IndexedSamples
from data_shards.records.manifest import PixelSums, ShardIndex

TEXTS = (
    "FINDINGS: Clear.\nTUBES: None.\nIMPRESSION: Normal.",
    "FINDINGS: XXXX XXXX. Clear.\nTECHNIQUE: Two views.\nADDENDUM: A nodule. Told.",
    "A man with fever.",
    "HISTORY: Cough.",
)


def test_a_build_ends_with_what_its_reports_hold(
    archive: Path, make_config: Callable[..., ShardsConfig]
) -> None:
    table = archive / "pairs.csv"
    header, *rows = csv.reader(table.open(newline=""))
    studies = sorted({(row[1], row[2]) for row in rows})
    assert len(studies) == 7 * len(TEXTS)
    for row in rows:
        row[4] = TEXTS[studies.index((row[1], row[2])) % len(TEXTS)]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    config = make_config(workers=1)
    *_, reports, sentences, _ = build(config).splitlines()
    assert reports == (
        "reports: 14 with findings, 7 with impression, 7 with neither but free text, 7 with "
        "nothing that a text policy takes"
    )
    assert sentences == (
        "sentences: 70, of which no text policy takes 35 (most in addendum 14, only removed words "
        "7, technique 7, history 7)"
    )
    # A build that finds all done says the same.
    assert build(config).splitlines()[-3:-1] == [reports, sentences]


def index(*samples: dict[str, tuple[int, ...]] | dict[str, int]) -> ShardIndex:
    return ShardIndex(
        plan_sha256="",
        tar_name="train-000000.tar",
        tar_bytes=0,
        tar_sha256="0" * 64,
        split="train",
        samples=IndexedSamples.of(
            IndexedSample(key=f"{n}", patient_id=f"{n}", views=("PA",), members={}, words=words)
            for n, words in enumerate(samples)
        ),
        dropped=(),
        pixels=PixelSums(),
    )


def test_sections_without_a_word_do_not_count_and_most_sections_come_first() -> None:
    told: dict[str, tuple[int, ...]] = {"findings": (0,), "lungs": (2,), "history": (1, 3)}
    short: dict[str, tuple[int, ...]] = {"impression": (1,)}
    reports, sentences = count_reports([index(told), index(short)])
    assert reports.startswith("reports: 0 with findings, 1 with impression, 0 with neither")
    assert reports.endswith(", 1 with nothing that a text policy takes")
    assert sentences == (
        "sentences: 5, of which no text policy takes 4 (most in history 2, findings 1, lungs 1)"
    )


def test_without_reports_there_is_nothing_to_say() -> None:
    assert count_reports([index({}, {"lovt": 3})]) == ()
