"""Every data set a profile may name, in one place."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from data_shards.sources.base import Source
from data_shards.sources.csv_pairs import CsvPairsConfig, CsvPairsSource
from data_shards.sources.mimic_cxr import MimicCxrConfig, MimicCxrSource
from data_shards.sources.phantom import PhantomConfig, open_phantom

SourceConfig = Annotated[
    MimicCxrConfig | CsvPairsConfig | PhantomConfig, Field(discriminator="name")
]


def open_source(config: SourceConfig, *, workers: int | None = None) -> Source:
    """The data set that `config` describes; `workers` draw the phantom, if it is not there."""
    match config:
        case MimicCxrConfig():
            return MimicCxrSource(config)
        case CsvPairsConfig():
            return CsvPairsSource(config)
        case PhantomConfig():
            return open_phantom(config, workers=workers)
