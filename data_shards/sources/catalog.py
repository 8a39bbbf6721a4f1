"""The data sets there are: a union of their settings, by `name`."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from data_shards.sources.chexpert import ChexpertConfig
from data_shards.sources.covid_rural import CovidRuralConfig
from data_shards.sources.csv_pairs import CsvPairsConfig
from data_shards.sources.mimic_cxr import MimicCxrConfig
from data_shards.sources.ms_cxr_grounding import MsCxrConfig
from data_shards.sources.nih_boxes import NihBoxesConfig
from data_shards.sources.object_cxr import ObjectCxrConfig
from data_shards.sources.openi import OpeniConfig
from data_shards.sources.rsna import RsnaConfig
from data_shards.sources.siim_acr import SiimAcrConfig
from data_shards.sources.webdataset import WebDatasetConfig

AnySourceConfig: TypeAlias = Annotated[
    MimicCxrConfig
    | CsvPairsConfig
    | WebDatasetConfig
    | OpeniConfig
    | MsCxrConfig
    | ChexpertConfig
    | RsnaConfig
    | SiimAcrConfig
    | NihBoxesConfig
    | ObjectCxrConfig
    | CovidRuralConfig,
    Field(discriminator="name"),
]
