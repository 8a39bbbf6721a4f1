"""What the columns of an index must not say, and the rows of the schema before them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from distributed_pretrain.data.shards import ShardSplit
from tests.distributed_pretrain.data.changed_documents import (
    Document,
    assert_said,
    at,
    found_by_verify,
    said_by_reader,
    updated,
)
from tests.fuzz.sealing import read_rows, reseal_indexes, write_rows

INDEX = "train-000000.index.json"


JSON = ("samples", "members", "json")
# What only columns can say wrongly.
COLUMNS: dict[str, tuple[Callable[[Document], None], str]] = {
    "a patient too few": (updated("samples", "patient_ids", by=lambda c: c.pop()), "one length"),
    "a view too many": (updated("samples", "views", by=lambda c: c.append([])), "one length"),
    "words of few": (at("samples", "words", "findings", value=[[3]]), "one length"),
    "a size too few": (updated(*JSON, "size", by=lambda c: c.pop()), "one length"),
    "a member too few": (updated(*JSON, by=lambda m: [c.pop() for c in m.values()]), "one length"),
    "half a member": (at(*JSON, "size", 0, value=None), "a sample has a part of a member"),
    "a sample without a key": (at("samples", "keys", 0, value=None), "samples.keys.0"),
    "rows": (at("samples", value=[]), "samples: Input should be an object"),
    "a schema of rows": (at("schema_version", value=2), "samples: Input should be a valid array"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_that_cannot_be_are_named_and_refused(sound_shards: Path, name: str) -> None:
    change, said = COLUMNS[name]
    index = json.loads((sound_shards / INDEX).read_text())
    change(index)
    (sound_shards / INDEX).write_text(json.dumps(index))
    reseal_indexes(sound_shards)
    assert_said(found_by_verify(sound_shards), said)
    assert_said(said_by_reader(sound_shards), f"refused: .*({said})")


def test_shards_of_the_schema_before_columns_are_read_as_those_of_today(sound_shards: Path) -> None:
    def everything() -> list[object]:
        split = ShardSplit(sound_shards, "train", "mgca")
        return [split.patients, split.left_out, *map(split.read, range(len(split)))]

    today = everything()
    for path in sound_shards.glob("*.index.json"):
        write_rows(path, read_rows(path) | {"schema_version": 2})
        assert isinstance(json.loads(path.read_text())["samples"], list)
    reseal_indexes(sound_shards)
    assert found_by_verify(sound_shards) == ""
    assert everything() == today
