"""Every data set a profile may name, in one place."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from data_shards.sources.base import Source
from data_shards.sources.csv_pairs import CsvPairsConfig, CsvPairsSource
from data_shards.sources.mimic_cxr import MimicCxrConfig, MimicCxrSource

SourceConfig = Annotated[MimicCxrConfig | CsvPairsConfig, Field(discriminator="name")]


def open_source(config: MimicCxrConfig | CsvPairsConfig, *, workers: int | None = None) -> Source:
    """The data set that `config` describes."""
    match config:
        case MimicCxrConfig():
            return MimicCxrSource(config)
        case CsvPairsConfig():
            return CsvPairsSource(config)
