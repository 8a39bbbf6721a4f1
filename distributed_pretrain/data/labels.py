"""What a study's labels are taken for, where its report does not say, or is not sure."""

from __future__ import annotations

import math

from data_shards.records.study import StudyRecord
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import label_values


def wanted_labels(record: StudyRecord, config: DataConfig) -> list[float]:
    """A value for each of `data.labels`: as it is stored, but for what the settings say.

    Uncertain ones (-1) are 1 or 0 by `uncertain_present` and `uncertain_absent`, and those that are
    not mentioned (NaN) 0 where `unmentioned` is absent.
    """
    return [
        _taken_for(name, value, config)
        for name, value in zip(config.labels, label_values(record, config.labels), strict=True)
    ]


def _taken_for(name: str, value: float, config: DataConfig) -> float:
    if math.isnan(value):
        return 0.0 if config.unmentioned == "absent" else value
    if value == -1 and name in config.uncertain_present:
        return 1.0
    return 0.0 if value == -1 and name in config.uncertain_absent else value
