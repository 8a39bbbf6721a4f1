"""Which image of NIH's each of RSNA's was made of: the organisers' JSON."""

from __future__ import annotations

from pathlib import Path

from data_shards.errors import InputError
from data_shards.sources.formats.cells import refuse_no_name_of_its_own, text_in
from data_shards.sources.formats.json_values import read_json


def read_nih_mapping(path: Path) -> dict[str, str]:
    """By ids of RSNA's images those of NIH's ("00000007_012"), out of subset_img_id and img_id.

    Raises InputError for a file of another layout, for an id that names nothing, and for an image
    that is two of NIH's.
    """
    images: dict[str, str] = {}
    try:
        for number, each in enumerate(read_json(path)):
            ours, nih = (
                _named(path, number, key, each[key]) for key in ("subset_img_id", "img_id")
            )
            stem = Path(nih).stem
            if images.setdefault(ours, stem) != stem:
                raise InputError(
                    f"{path}: image {ours} is NIH's {stem}, and before {images[ours]}: keep one of "
                    "them"
                )
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not the mapping of RSNA to NIH (a list of subset_img_id and img_id): "
            f"{error!r}: fetch it again"
        ) from error
    return images


def nih_patient(image: str) -> str:
    """Whose an image of NIH's is: the first part of its name."""
    return image.partition("_")[0]


def _named(path: Path, number: int, key: str, value: object) -> str:
    try:
        refuse_no_name_of_its_own(value)
        name = text_in(value)
    except ValueError as error:
        raise InputError(f"{path}: entry {number}: {key} {error}") from error
    if not name:
        raise InputError(f"{path}: entry {number}: {key} is empty: fetch the mapping again")
    return name
