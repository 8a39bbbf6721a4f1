"""The section `phantom` of a shards profile: what to draw before a source reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, PositiveFloat, ValidationError

from data_shards.profiles import Config
from data_shards.records.study import SPLITS, Split
from data_shards.written import as_meant

# By the names of the importers that read them.
Layout: TypeAlias = Literal[
    "mimic_cxr",
    "ms_cxr",
    "openi",
    "chexpert",
    "rsna",
    "siim_acr",
    "nih_boxes",
    "object_cxr",
    "covid_rural",
]


class WorldConfig(Config):
    """How little of where a finding lies follows without looking at the image.

    `focal_share` of new findings are focal, so that they may lie anywhere in a lung (null: as often
    as a radiologist meets them). The frontal is shifted by up to `shift_cm` and enlarged by a
    factor between those of `zoom`. Without `place_words` no sentence says the side or zone of a
    finding.
    """

    focal_share: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    shift_cm: float = Field(default=0.0, ge=0.0, le=17.0)
    zoom: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    place_words: bool = True


class PhantomConfig(Config):
    """What to draw, and the folder and layout of the raw archive.

    Patients have one to four studies, all in one split. Images are `image_size_px` high;
    frontals are square, laterals narrower. `noise` scales the usual quantum noise.
    """

    archive: Path = Path("runs/phantom/archive")
    layout: Layout = "mimic_cxr"
    train_studies: int = Field(default=1200, ge=1)
    validate_studies: int = Field(default=100, ge=0)
    test_studies: int = Field(default=200, ge=0)
    image_size_px: int = Field(default=256, ge=64, le=2048)
    noise: float = Field(default=1.0, ge=0.0, le=10.0)
    world: WorldConfig = WorldConfig()
    seed: int = Field(default=0, ge=0)

    @property
    def studies_by_split(self) -> dict[Split, int]:
        """How many studies each split gets, exactly."""
        return {split: getattr(self, f"{split}_studies") for split in SPLITS}


def source_of_phantom(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a shards profile, whose `source` finds what its `phantom` section draws.

    The importer of the layout's own name gets from the layout what the profile does not say, and
    the phantom's files where the profile names others, outside of the phantom's archive: so the
    profile of a real set serves as it is. In profiles of earlier releases the phantom was a source:
    its fields are moved.
    """
    source, drawn = values.get("source"), values.get("phantom")
    if not isinstance(source, dict) or (drawn is None and source.get("name") != "phantom"):
        return dict(values)
    moved = {key: source[key] for key in source.keys() & PhantomConfig.model_fields.keys()}
    source = {key: value for key, value in source.items() if key not in moved}
    if source.get("name") == "phantom":
        source["name"] = "mimic_cxr"
    drawn = {**(drawn or {}), **moved}
    try:
        phantom = PhantomConfig.model_validate(drawn)
    except ValidationError:
        # For the profile's own validation to tell, which knows the whole path of the field.
        return {**values, "phantom": drawn, "source": source}
    if source.get("name") == phantom.layout:
        # Brings in what draws, which those who read no phantom's profile do without.
        from data_shards.phantom.layouts.catalog import LICENCE, layout_of

        found = layout_of(phantom.layout).importer_settings(phantom)
        real = {
            key
            for key, place in found.items()
            if isinstance(place, Path) and _leads_out(source.get(key), phantom.archive)
        }
        source = {key: value for key, value in source.items() if key not in real}
        source = {"licence": LICENCE, **found, **source}
    return {**values, "phantom": drawn, "source": source}


def _leads_out(value: Any, archive: Path) -> bool:
    try:
        path = as_meant(value, Path | None)
    except ValueError:
        return False  # for the field itself to refuse
    return isinstance(path, str | Path) and not Path(path).is_relative_to(archive)
