"""Documents of a shard folder changed by hand, and what `verify` and the reader say of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_shards.checking.verify import verify_shards
from data_shards.errors import InputError
from data_shards.records.study import SPLITS
from distributed_pretrain.data.quarantine import BadSampleError
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import ShardSplit
from tests.distributed_pretrain.data.one_sample import load_sample
from tests.fuzz.damages import value_at, with_value

Document = dict[str, Any]


def found_by_verify(folder: Path) -> str:
    try:
        return "\n".join(verify_shards(folder, workers=1).problems)
    except InputError as error:
        return str(error)


def said_by_reader(folder: Path) -> str:
    """What is said when all splits are opened and all samples loaded, line by line."""
    lines = []
    data = DataConfig(shards=folder, global_batch=2, views="frontal_lateral")
    for split in SPLITS:
        try:
            samples = ShardSplit(folder, split, "lovt")
        except InputError as error:
            lines.append(f"refused: {error}")
            continue
        for position in range(len(samples)):
            try:
                load_sample(samples, data, position=position)
            except BadSampleError as error:
                lines.append(f"quarantined: {error}")
    return "\n".join(lines)


def at(*path: str | int, value: Any) -> Callable[[Document], None]:
    return lambda document: with_value(document, path, value) and None


def updated(*path: str | int, by: Callable[[Any], Any]) -> Callable[[Document], None]:
    return lambda document: by(value_at(document, path))


def assert_said(text: str, said: str) -> None:
    assert re.search(said, text), f"{text!r} says nothing of {said!r}"
