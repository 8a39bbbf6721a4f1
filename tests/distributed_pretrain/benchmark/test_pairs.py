from __future__ import annotations

from typing import Any

import pytest

from data_shards.errors import InputError
from data_shards.profiles import validate
from distributed_pretrain.benchmark.pairs import (
    Form,
    Settings,
    form_gflops,
    report_lengths,
)


def config_of(**changes: Any) -> Settings:
    return validate(Settings, {"method": "limitr"} | changes, where="test")


def test_the_method_must_be_named_and_known() -> None:
    with pytest.raises(InputError, match="test: method: required"):
        validate(Settings, {}, where="test")
    with pytest.raises(InputError, match=r"test: method: .*'limitr' or 'gloria'"):
        config_of(method="lovt")


def test_reports_of_real_lengths_reach_from_a_fifth_to_all_words() -> None:
    config = config_of()
    lengths = report_lengths(Form("paper", "float32", padded=True), config, 17)
    assert [lengths.min().item(), lengths.max().item()] == [20, config.words]
    assert lengths.unique().numel() == 17
    assert not lengths.equal(lengths.sort().values)


def test_a_pair_of_the_paper_takes_12_products_and_of_the_loop_what_the_spec_says() -> None:
    config = config_of(batch_size=1)
    product = 2 * 361 * 97 * 768 / 1e9
    assert form_gflops(Form("paper", "float32"), config) == pytest.approx(12 * product)
    loop = form_gflops(Form("loop", "float32"), config)
    assert loop / 3 == pytest.approx(0.75, rel=0.02)
