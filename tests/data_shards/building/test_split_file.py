"""Splits by lists of people's own, over 14 patients of two studies each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from data_shards.building.inspect import inspect_source
from data_shards.building.plan import BuildPlan, plan_source
from data_shards.building.settings import ShardsConfig
from data_shards.errors import InputError
from tests.data_shards.building.whole import build_shards

MakeConfig = Callable[..., ShardsConfig]
PATIENTS = [f"p{number}" for number in range(14)]


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., str]:
    """Writes a table of lines; its path."""

    def write(lines: Sequence[str], name: str = "splits.csv") -> str:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    return write


def planned(config: ShardsConfig) -> BuildPlan:
    return plan_source(config.source.open(), config, fingerprint="")


def patients_by_split(plan: BuildPlan) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for shard in plan.shards:
        found.setdefault(shard.split, set()).update(ref.patient_id for _, ref in shard.studies)
    return found


def test_a_table_of_patients_decides_all_splits(
    make_config: MakeConfig, table: Callable[..., str]
) -> None:
    words = ["test", "val", *["train"] * 12]
    lines = [f"{split},{patient}" for patient, split in zip(PATIENTS, words, strict=True)]
    path = table(["split,patient", *lines])
    file = {"table": path, "ids": "patient", "of": "patients"}
    assert patients_by_split(planned(make_config(split_file=file))) == {
        "test": {"p0"},
        "validate": {"p1"},
        "train": set(PATIENTS[2:]),
    }


def test_a_list_for_each_split_names_images_and_the_rest_is_left_out_and_counted(
    make_config: MakeConfig, table: Callable[..., str]
) -> None:
    lists = {
        "train": table(["ID,classes", *(f"{p}_s0_PA.jpg,1" for p in PATIENTS[:6])], "train.csv"),
        "validate": table(["ID", "images/p6_s1_PA.jpg"], "validate.csv"),
        "test": table(["ID", "p7_s0_L", "p7_s1_PA", "p99_s0_PA"], "test.csv"),
    }
    config = make_config(split_file={"lists": lists, "unlisted": "drop"})
    told = inspect_source(config)
    assert "splits: 6 train, 1 validate, 2 test" in told
    assert "left out: 19 x in no list of split_file" in told
    manifest = build_shards(config)
    assert manifest.samples_by_split == {"train": 6, "validate": 1, "test": 2}
    assert manifest.dropped_by_reason == {"in no list of split_file": 19}
    assert "1 of 10 ids of split_file name nothing in the source" in manifest.warnings
    Path(lists["test"]).write_text("ID\np8_s0_PA\n")
    with pytest.raises(InputError, match="holds shards of another source"):
        build_shards(config)


REFUSED: dict[str, tuple[list[str], dict[str, str], str]] = {
    "two splits of an id": (
        ["split,ID", "train,p1", "test,p1"],
        {"of": "patients"},
        r"line 3: 'p1' is in 'test', but in 'train' by .*line 2: remove",
    ),
    "two splits of a patient": (
        ["split,ID", "train,p1_s0_PA", "test,p1_s1_PA"],
        {},
        r"line 3: 'p1_s1_PA' is in 'test', but .*line 2 puts patient p1 into 'train'",
    ),
    "an id of two patients": (
        ["split,ID", "train,s0"],
        {},
        r"line 2: 's0' is the id of something of patients p0 and p1: .*of=patients",
    ),
    "ids that do not join": (
        ["split,ID", "train,x", "test,y"],
        {},
        r"none of its 2 ids \('x' ...\) is one of the source's studies: check split_file.ids",
    ),
    "studies that no list names": (
        ["split,ID", "train,p0", "test,p1"],
        {"of": "patients"},
        r"24 of 28 studies are in no list \(first: study s0 of patient p10\): .*unlisted=drop",
    ),
    "no training": (
        ["split,ID", "test,p0"],
        {"of": "patients", "unlisted": "drop"},
        "split 'train' has no patients",
    ),
    "another word": (
        ["split,ID", "dev,p0"],
        {},
        "line 2: column 'split': split 'dev': expected train",
    ),
    "another column": (["split,id", "test,p0"], {}, "no column 'ID'.*did you mean 'id'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_lists_that_cannot_be_followed_are_refused(
    make_config: MakeConfig, table: Callable[..., str], name: str
) -> None:
    lines, settings, said = REFUSED[name]
    with pytest.raises(InputError, match=said):
        planned(make_config(split_file={"table": table(lines), **settings}))


def test_one_kind_of_list_is_wanted_and_no_sizes_beside_it(
    make_config: MakeConfig, table: Callable[..., str]
) -> None:
    with pytest.raises(InputError, match=r"split_file: .*split_file\.lists\.train"):
        make_config(split_file={"ids": "x"})
    sizes = {"validate_studies": 2, "test_studies": 2}
    with pytest.raises(InputError, match="leave split_sizes out"):
        make_config(split_file={"table": table([])}, split_sizes=sizes)
