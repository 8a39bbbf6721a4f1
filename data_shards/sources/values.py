"""What words in tables stand for: views, splits and labels."""

from __future__ import annotations

from data_shards.errors import InputError
from data_shards.records.study import Split, View
from data_shards.sources.formats.tables import Row

# A "frontal" of unknown direction counts as PA, the usual one: methods only tell frontal from
# lateral.
VIEWS: dict[str, View] = {
    **dict.fromkeys(("PA", "FRONTAL"), "PA"),
    **dict.fromkeys(("AP", "AP SUPINE", "AP ERECT"), "AP"),
    **dict.fromkeys(("L", "LATERAL", "LL", "RL"), "L"),
}
_SPLITS: dict[str, Split] = {
    "train": "train",
    **dict.fromkeys(("validate", "validation", "valid", "val"), "validate"),
    "test": "test",
}
_LABELS: dict[str, float | None] = {
    "": None,
    **{"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": -1.0, "-1.0": -1.0},
}


def split_in(row: Row, column: str) -> Split:
    """The split that a cell names. Raises InputError for an empty cell and any other word."""
    value = row.filled(column)
    if value.lower() not in _SPLITS:
        raise InputError(
            f"{row.where}: column {column!r}: split {value!r}: expected {', '.join(_SPLITS)}: "
            "correct it"
        )
    return _SPLITS[value.lower()]


def label_in(row: Row, column: str) -> float | None:
    """1, 0, -1 (uncertain) or None (not mentioned). Raises InputError for another value."""
    value = row[column]
    if value not in _LABELS:
        raise InputError(
            f"{row.where}: column {column!r}: label {value!r}: expected 1, 0, -1 or nothing: "
            "correct it"
        )
    return _LABELS[value]
