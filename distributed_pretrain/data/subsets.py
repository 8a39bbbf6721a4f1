"""A share of a split's studies: by seed, stratified, and nested in every larger share."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping
from hashlib import sha256

from data_shards.errors import InputError
from data_shards.records.study import Split, StudyRecord
from distributed_pretrain.data.labels import wanted_labels
from distributed_pretrain.data.quarantine import BadSampleError
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import ShardSplit

_FIELDS: dict[Split, str] = {"train": "fraction", "validate": "validate_fraction"}


def fraction_of(config: DataConfig, split: Split) -> float:
    """The share of a split's studies that is asked for."""
    return {"train": config.fraction, "validate": config.validate_fraction}.get(split, 1.0)


def chosen_studies(split: ShardSplit, config: DataConfig) -> frozenset[str]:
    """The keys of the split's studies that are asked for, as many as `fraction_of`, rounded.

    Every study is read for what it has of the labels, masks and boxes that are wanted, and one that
    cannot be read counts as having none. Raises InputError where one of these is left without a
    study that has it.
    """
    present: dict[str, frozenset[str]] = {}
    for position in range(len(split)):
        present[split.key(position)] = frozenset()
        with contextlib.suppress(BadSampleError):  # the loader meets it again, and counts it
            present[split.key(position)] = _classes_of(split.read(position), config)
    ordered = stratified_order(present, seed=config.fraction_seed)
    fraction = fraction_of(config, split.split)
    count = max(1, round(fraction * len(ordered)))
    kept = ordered[:count]
    found = frozenset[str]().union(*(present[key] for key in kept))
    for name in sorted(frozenset[str]().union(*present.values()) - found):
        needed = next(number for number, key in enumerate(ordered, 1) if name in present[key])
        raise InputError(
            f"data.{_FIELDS[split.split]}={fraction}: among {count} of {len(ordered)} studies of "
            f"split {split.split!r} in {split.files} is none with {name!r}: use "
            f"{needed / len(ordered):.4f} or more, or another data.fraction_seed"
        )
    return frozenset(kept)


def stratified_order(present: Mapping[str, frozenset[str]], *, seed: int) -> list[str]:
    """All keys in an order of which every beginning is a stratified sample.

    Studies with the same classes are a stratum. Its n studies, in the order of a hash of seed and
    key, stand at (i + u) / n of the way, with a u of its own in [0, 1): evenly, so that the first
    share of all holds that share of each stratum, to within one study.
    """
    strata: defaultdict[frozenset[str], list[str]] = defaultdict(list)
    for key, classes in present.items():
        strata[classes].append(key)
    placed = []
    for classes, keys in strata.items():
        shift = _uniform(seed, *sorted(classes))
        keys.sort(key=lambda key: _uniform(seed, key))
        placed += [((i + shift) / len(keys), key) for i, key in enumerate(keys)]
    return [key for _, key in sorted(placed)]


def _classes_of(record: StudyRecord, config: DataConfig) -> frozenset[str]:
    """Which of what is wanted a study has: a label's 1, a mask, a box."""
    labels = wanted_labels(record, config)
    drawn = record.masks if config.masks_from == "masks" else record.boxes
    return frozenset(
        {name for name, value in zip(config.labels, labels, strict=True) if value == 1}
        | {each.category for each in drawn if each.category in config.masks}
        | {each.category for each in record.boxes if each.category in config.boxes}
    )


def _uniform(seed: int, *words: str) -> float:
    digest = sha256("\0".join([str(seed), *words]).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
