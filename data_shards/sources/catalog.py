"""The data sets there are: a union of their settings, by `name`."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from data_shards.sources.csv_pairs import CsvPairsConfig
from data_shards.sources.mimic_cxr import MimicCxrConfig
from data_shards.sources.webdataset import WebDatasetConfig

AnySourceConfig: TypeAlias = Annotated[
    MimicCxrConfig | CsvPairsConfig | WebDatasetConfig,
    Field(discriminator="name"),
]
