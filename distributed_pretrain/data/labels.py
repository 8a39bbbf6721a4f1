"""Labels of studies by name, as a profile asks for them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence

from data_shards.errors import InputError
from data_shards.records.study import StudyRecord
from distributed_pretrain.data.shards import BadSampleError, ShardSplit


def label_values(record: StudyRecord, names: Sequence[str]) -> list[float]:
    """The study's value of each label as it is stored; NaN where it has none."""
    values = (record.labels.get(name) for name in names)
    return [math.nan if value is None else float(value) for value in values]


def check_labels(split: ShardSplit, names: Sequence[str]) -> None:
    """Raises InputError, with the nearest names there are, unless the split knows all `names`.

    Studies are read until every name has been met: one or few, unless a name is wrong.
    """
    missing, known = set(names), set[str]()
    for position in range(len(split)):
        if not missing:
            return
        try:
            known |= split.read(position).record.labels.keys()
        except BadSampleError:
            continue  # The loader will meet it again, and count it.
        missing -= known
    if not missing:
        return
    name = next(name for name in names if name in missing)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    listed = ", ".join(sorted(known)) or "none (build shards from a source with labels)"
    remedy = f"did you mean {near[0]!r}?" if near else f"known labels: {listed}"
    raise InputError(
        f"data.labels: no study of split {split.split!r} in {split.folder} has a label {name!r}: "
        f"{remedy}"
    )
