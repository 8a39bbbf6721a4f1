"""Worlds in which where a finding lies does not follow from what it is called."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from data_shards.errors import InputError
from data_shards.phantom.archive import draw_if_absent
from data_shards.phantom.images.findings import FOCAL
from data_shards.phantom.reports.places import without_place
from data_shards.phantom.reports.report_writer import write_report
from data_shards.phantom.settings import PhantomConfig, WorldConfig
from data_shards.phantom.study import Study, draw_patient, plan_patients

PLANS = plan_patients(3, {"train": 120, "validate": 0, "test": 0})
PLACES = re.compile(
    r"\b(upper|mid|middle|lower|base|lingula|apical|bilateral)\b"
    r"|\b(right|left)(-sided)? (pleural|pneumothorax|lung|zone|atelectasis|consolidation|opacity)"
    r"|on the (right|left)"
)


def studies(world: WorldConfig) -> list[Study]:
    return [study for plan in PLANS for study in draw_patient(3, plan, world)]


def test_without_words_for_places_no_sentence_says_where_a_finding_lies() -> None:
    said: set[str] = set()
    for study in studies(WorldConfig()):
        seed = [3, study.number, 2]
        plain = write_report(study, np.random.default_rng(seed), place_words=False)
        whole = write_report(study, np.random.default_rng(seed))
        assert plain.labels == whole.labels
        assert len(plain.phrases) == len(whole.phrases) == len(study.findings)
        said |= set(plain.phrases)
        body = re.split(r"(?:FINDINGS|IMPRESSION)[^:]*:", plain.text)[1:]
        said |= {sentence for part in body for sentence in re.split(r"(?<=[.])\s+", part)}
    # Where an organ or a device lies says nothing of a finding.
    others = re.compile(r"abdomen|hemidiaphragm|jugular|IJ line|pacemaker|pleural effusions?$")
    told = [each for each in said if PLACES.search(" ".join(each.split()))]
    assert [each for each in told if not others.search(each)] == []
    assert len(said) > 100


@pytest.mark.parametrize(
    ("sentence", "plain"),
    [
        ("Large right middle lobe consolidation.", "Large consolidation."),
        ("A 2.7 cm nodule in the right lung base.", "A 2.7 cm nodule in the lung."),
        ("Small left-sided pleural effusion.", "Small pleural effusion."),
        ("Moderate pleural effusion on the right, increased since the prior study.",
         "Moderate pleural effusion, increased since the prior study."),
        ("Small right apical pneumothorax noted.", "Small pneumothorax noted."),
        ("Interval resolution of the left atelectasis.", "Interval resolution of the atelectasis."),
        ("The right lung is clear.", None),
        ("No left pleural effusion.", None),
        ("The heart size is normal.", "The heart size is normal."),
    ],
)  # fmt: skip
def test_a_sentence_loses_its_place(sentence: str, plain: str | None) -> None:
    assert without_place(sentence) == plain


def test_the_share_of_focal_findings_is_what_was_asked_for() -> None:
    def share(world: WorldConfig) -> float:
        first = [each for study in studies(world) if study.is_first for each in study.findings]
        return sum(each.category in FOCAL for each in first) / len(first)

    assert 0.35 < share(WorldConfig()) < 0.6
    assert share(WorldConfig(focal_share=0.9)) > 0.8
    assert share(WorldConfig(focal_share=0.0)) == 0


def test_the_chest_is_shifted_and_enlarged_and_nothing_else_changes() -> None:
    usual, moved = studies(WorldConfig()), studies(WorldConfig(shift_cm=4, zoom=(0.8, 1.25)))
    shifts = [
        other.pose.right_cm - own.pose.right_cm for own, other in zip(usual, moved, strict=True)
    ]
    assert -4 <= min(shifts) < -3
    assert 3 < max(shifts) <= 4
    zooms = [study.pose.zoom for study in moved]
    assert 0.8 <= min(zooms) < 0.85
    assert 1.2 < max(zooms) <= 1.25
    assert all(study.pose.zoom == 1 for study in usual)
    for own, other in zip(usual, moved, strict=True):
        assert (own.findings, own.anatomy, own.lateral_pose, own.devices) == (
            other.findings,
            other.anatomy,
            other.lateral_pose,
            other.devices,
        )


def test_an_archive_of_an_earlier_release_is_of_the_usual_world(tmp_path: Path) -> None:
    config = PhantomConfig(
        archive=tmp_path / "phantom",
        train_studies=2,
        validate_studies=0,
        test_studies=0,
        image_size_px=64,
    )
    draw_if_absent(config, workers=1)
    settings = config.archive / "phantom.json"
    drawn = json.loads(settings.read_text())
    del drawn["world"]
    settings.write_text(json.dumps(drawn))
    draw_if_absent(config, workers=1)
    other = config.model_copy(update={"world": WorldConfig(place_words=False)})
    with pytest.raises(InputError, match=r"drawn with other settings .*world"):
        draw_if_absent(other, workers=1)
