from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from data_shards.building import plan as plan_module
from data_shards.building.plan import BuildPlan, plan_build, sample_key
from data_shards.building.settings import ShardsConfig
from data_shards.errors import InputError
from data_shards.sources.base import StudyRef

MakeConfig = Callable[..., ShardsConfig]
STUDIES = [StudyRef(f"p{number // 2}", f"s{number}") for number in range(200)]


def planned_build(studies: Sequence[StudyRef], config: ShardsConfig) -> BuildPlan:
    return plan_build(studies, config, fingerprint="the same tables")


def test_every_study_is_planned_once_in_shards_of_the_wanted_size(make_config: MakeConfig) -> None:
    plan = planned_build(STUDIES, make_config(samples_per_shard=16))
    planned = [ref for shard in plan.shards for _, ref in shard.studies]
    assert sorted(planned) == sorted(STUDIES)
    last_of_split = {shard.split: shard for shard in plan.shards}
    full = [shard for shard in plan.shards if last_of_split[shard.split] is not shard]
    assert full
    assert all(len(shard.studies) == 16 for shard in full)


def test_the_order_of_listing_and_the_workers_do_not_change_the_plan(
    make_config: MakeConfig,
) -> None:
    plan = planned_build(STUDIES, make_config(workers=1))
    assert planned_build(STUDIES[::-1], make_config(workers=7, output="elsewhere")) == plan


def test_seed_settings_and_studies_change_the_digest(make_config: MakeConfig) -> None:
    plans = [
        planned_build(STUDIES, make_config()),
        planned_build(STUDIES, make_config(seed=1)),
        planned_build(STUDIES, make_config(jpeg_quality=80)),
        planned_build(STUDIES[:-1], make_config()),
    ]
    assert len({plan.sha256 for plan in plans}) == len(plans)


def test_other_tables_and_another_release_change_the_digest_and_not_the_shards(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = planned_build(STUDIES, make_config())
    edited = plan_build(STUDIES, make_config(), fingerprint="edited tables")
    monkeypatch.setattr(plan_module, "version", lambda _: "99.0")
    released = planned_build(STUDIES, make_config())
    assert before.shards == edited.shards == released.shards
    assert len({before.sha256, edited.sha256, released.sha256}) == 3


def test_a_moved_archive_is_the_same_source_and_another_table_is_not(
    make_config: MakeConfig, archive: Path
) -> None:
    config = make_config()

    def digest(table: Path) -> str:
        source = config.source.model_copy(update={"table": table})
        return planned_build(STUDIES, config.model_copy(update={"source": source})).sha256

    assert digest(archive / "pairs.csv") == digest(Path("/elsewhere/pairs.csv"))
    assert digest(archive / "pairs.csv") != digest(archive / "other.csv")


def test_keys_are_safe_as_file_names_and_differ_for_different_ids() -> None:
    assert sample_key("p1", "s1") == "p1_s1"
    odd = [("a/b", "1"), ("a b", "1"), ("a.b", "1"), ("ä", "1"), ("x" * 90, "1"), ("x" * 91, "1")]
    keys = {sample_key(*ids) for ids in odd}
    assert len(keys) == len(odd)
    assert all(set(key) <= set("abcdef0123456789x_-") and len(key) <= 64 for key in keys)


def test_duplicate_ids_are_refused(make_config: MakeConfig) -> None:
    with pytest.raises(InputError, match="duplicate ids: patient p0, study s0"):
        planned_build([*STUDIES, StudyRef("p0", "s0")], make_config())
    with pytest.raises(InputError, match="duplicate ids"):
        planned_build([StudyRef("a_b", "c"), StudyRef("a", "b_c")], make_config())
