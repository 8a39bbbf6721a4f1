"""What may change between two starts of a run, and what a method says for its profile."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from data_shards.errors import InputError
from data_shards.profiles import first_difference, validate
from distributed_pretrain.methods.catalog import AnyMethodConfig
from distributed_pretrain.methods.settings import MethodConfig
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.folder import RunFolder
from tests.golden.record import RECORDED

METHODS: dict[str, type[MethodConfig]] = {
    kind.model_fields["name"].default: kind for kind in get_args(get_args(AnyMethodConfig)[0])
}
SIZES_OF_CHUNKS = [
    (name, field)
    for name, kind in METHODS.items()
    for field in kind.model_fields
    if "chunk" in field
]
WEIGHTS = [
    (name, field)
    for name, kind in METHODS.items()
    for field in kind.model_fields
    if field.endswith("_weight")
]


def config(method: str = "lovt", /, **sections: dict[str, Any]) -> PretrainConfig:
    """The run of a method; of each section what differs from the defaults."""
    values: dict[str, Any] = {
        "run_folder": "run",
        "data": {"shards": "shards", **sections.pop("data", {})},
        "method": {"name": method, **sections.pop("method", {})},
    }
    return validate(PretrainConfig, values | sections, where="test")


def difference(one: PretrainConfig, other: PretrainConfig) -> str | None:
    assert one != other
    return first_difference(one.deciding(), other.deciding())


@pytest.mark.parametrize(("method", "field"), SIZES_OF_CHUNKS)
def test_sizes_of_chunks_may_change_between_two_starts(method: str, field: str) -> None:
    assert difference(config(method), config(method, method={field: 64})) is None


def test_every_method_that_compares_pairs_bounds_its_memory_by_chunks() -> None:
    compare = {"lovt", "limitr", "gloria", "convirt", "clip", "simclr", "mgca"}
    assert {method for method, field in SIZES_OF_CHUNKS if field == "chunk_size"} == compare


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"shards": "elsewhere"}},
        {"data": {"decode_threads": 3}},
        {"data": {"prefetch_batches": 9}},
        {"training": {"accumulation_steps": 4}},
        {"training": {"distributed": {"name": "deepspeed"}}},
        {"training": {"keep_checkpoints": 7}},
        {"training": {"pictures": False}},
        {"training": {"rank_timeout_seconds": 5.0}},
        {"training": {"peak_teraflops": 312.0}},
    ],
    ids=lambda changes: ".".join(next(iter(changes.values()))),
)
def test_what_changes_no_result_may_change(changes: dict[str, dict[str, Any]]) -> None:
    assert difference(config(), config(**changes)) is None


@pytest.mark.parametrize(("method", "field"), WEIGHTS)
def test_the_weight_of_a_loss_may_not_change(method: str, field: str) -> None:
    found = difference(config(method), config(method, method={field: 0.625}))
    assert found is not None
    assert found.startswith(f"method.{field} ")


def test_the_parts_of_plain_accumulation_may_not_change() -> None:
    """They decide which samples are compared; those of exact accumulation do not."""
    two, four = (
        config(training={"accumulation": "plain", "accumulation_steps": steps}) for steps in (2, 4)
    )
    assert difference(two, four) == "training.accumulation_steps (2 then, 4 now)"


@pytest.mark.parametrize("method", METHODS)
def test_a_method_says_what_it_reads_and_a_profile_need_not(method: str) -> None:
    reads = METHODS[method]().reads
    data = config(method).data
    assert (data.views, data.text_policy, data.sentences) == (
        reads.views,
        reads.text_policy,
        reads.sentences,
    )
    assert (data.sentence_swaps, data.max_tokens) == (reads.sentence_swaps, reads.max_tokens)


def test_a_profile_may_differ_in_all_but_the_views() -> None:
    data = config("limitr", data={"max_tokens": 50, "text_policy": "lovt"}).data
    assert (data.max_tokens, data.text_policy, data.views) == (50, "lovt", "frontal_lateral")


@pytest.mark.parametrize("method", METHODS)
def test_other_views_than_a_method_learns_from_are_refused(method: str) -> None:
    wanted = METHODS[method]().reads.views
    other = "frontal_lateral" if wanted == "frontal" else "frontal"
    with pytest.raises(InputError, match=rf"{method} as configured learns from {wanted}: set "):
        config(method, data={"views": other})


def test_what_a_method_reads_follows_its_switches() -> None:
    assert config("limitr", method={"lateral": False}).data.views == "frontal"


def test_a_bad_method_is_told_as_one_even_where_it_leaves_the_data_open() -> None:
    with pytest.raises(InputError, match=r"unknown key 'method\.embeding_dim': did you mean"):
        config("lovt", method={"embeding_dim": 3})


def test_the_config_of_a_run_of_an_earlier_release_is_read_as_if_it_were_written_now() -> None:
    earlier = RunFolder(RECORDED / "run_folder").read_config(PretrainConfig)
    method = earlier.method.model_dump()
    assert (method["embedding_dim"], method["chunk_size"]) == (16, 4)
    assert earlier.data.shuffle_buffer_shards == 16
    # It told which way its best metric is best; now the metric knows.
    assert "best_is" in (RECORDED / "run_folder" / "config.yaml").read_text()
    assert "best_is" not in earlier.training.model_dump()
