from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.sources.covid_rural import CovidRuralConfig
from tests.data_shards.sources.tables_on_disk import samples_of, source_of, touch

ONE = "COVID-19-AR-16406541_01-19-2012-XR_CHEST-1"
TWO = "COVID-19-AR-16406541_02-19-2012-XR_CHEST-2"


def test_masks_join_by_name_and_images_without_one_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, (f"jpgs/{ONE}.jpg", f"jpgs/{TWO}.jpg", f"pngs_masks/{ONE}.png"))
    source = source_of(CovidRuralConfig, root=tmp_path)
    [sample] = samples_of(source).values()
    assert (sample.patient_id, sample.study_id) == ("COVID-19-AR-16406541", ONE)
    [mask] = sample.masks
    assert (mask.category, str(mask.path)) == ("Opacity", f"{tmp_path}/pngs_masks/{ONE}.png")
    [dropped] = source.list_dropped_images()
    assert (dropped.key, dropped.reason) == (TWO, "no mask")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "jpgs: no such folder"),
        (("jpgs/a.txt", "pngs_masks/a.png"), "no JPEG in this folder: set source.root"),
        ((f"jpgs/{ONE}.jpg",), "pngs_masks: no such folder"),
        ((f"jpgs/{ONE}.jpg", "pngs_masks/b.png"), "no mask has the name of an image"),
        (("jpgs/nobody.jpg", "pngs_masks/nobody.png"), "no patient before an underscore"),
    ],
)
def test_folders_that_are_not_the_sets_are_refused(
    names: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    touch(tmp_path, names)
    with pytest.raises(InputError, match=said):
        source_of(CovidRuralConfig, root=tmp_path).list_studies()
