"""Every importer of a published set refuses what is wrong with its archive, in one line.

A new layout is held to all of it by a line in `damaged_layouts`. Sets of one's own tables are held
to the same in `test_every_source.py` and `test_csv_labels.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

from data_shards.building.plan import plan_source
from data_shards.building.settings import ShardsConfig
from data_shards.errors import InputError
from data_shards.phantom.archive import draw_if_absent
from data_shards.phantom.layouts.catalog import layout_of
from data_shards.phantom.settings import Layout, PhantomConfig
from data_shards.profiles import load_profile
from tests.data_shards.building.whole import build_shards
from tests.data_shards.sources.damaged_layouts import CASES, EXEMPT, REFUSALS
from tests.paths import CONFIGS

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
SIZES = ("split_sizes.validate_studies=1", "split_sizes.test_studies=1")
SETTINGS: dict[Layout, tuple[str, ...]] = {
    "covid_rural": SIZES,
    "rsna": SIZES,
    "siim_acr": SIZES,
    "nih_boxes": (*SIZES, "source.no_finding_images=0"),
    "object_cxr": SIZES,
    "chexpert": ("validate_fraction=0",),
    "openi": ("validate_fraction=0", "test_fraction=0"),
}

Profile = Callable[..., ShardsConfig]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Layout], Path]:
    """Small archives, which are copied before they are damaged."""
    root = tmp_path_factory.mktemp("sound")

    @cache
    def draw(name: Layout) -> Path:
        if name in ("rsna", "siim_acr"):
            pytest.importorskip("pydicom", reason="pip install 'radalign[dicom]'")
        draw_if_absent(phantom(name, root / name), workers=1)
        return root / name

    return draw


def phantom(name: Layout, archive: Path) -> PhantomConfig:
    return PhantomConfig(
        archive=archive,
        layout=name,
        train_studies=10,
        validate_studies=2,
        test_studies=2,
        image_size_px=64,
    )


def profile_of(name: Layout, archive: Path, *changes: str) -> ShardsConfig:
    values = layout_of(name).importer_settings(phantom(name, archive))
    found = [f"source.{key}={value}" for key, value in values.items()]
    output = f"output={archive.parent / 'shards'}"
    path = CONFIGS / "shards" / f"{name}.yaml"
    settings = [*found, *SETTINGS.get(name, ()), output, "workers=1", *changes]
    return load_profile(ShardsConfig, path, settings)


def test_every_layout_is_held_to_every_refusal_or_says_why_it_cannot_arise() -> None:
    assert CASES.keys() == EXEMPT.keys() == set(LAYOUTS)
    for layout in LAYOUTS:
        assert sorted([*CASES[layout], *EXEMPT[layout]]) == sorted(REFUSALS), layout


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, cases in CASES.items() for case in cases]
)
def test_what_is_wrong_is_refused_in_one_line(
    name: Layout, case: str, drawn: Callable[[Layout], Path], tmp_path: Path
) -> None:
    damage, said, settings = CASES[name][case]
    archive = Path(shutil.copytree(drawn(name), tmp_path / "archive"))
    damage(archive)
    with pytest.raises(InputError, match=said) as error:
        build_shards(profile_of(name, archive, *settings))
    assert str(archive) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "shards" / "manifest.json").exists()


@pytest.mark.parametrize("name", LAYOUTS)
def test_half_a_folder_of_images_is_counted_and_left_out_where_that_is_asked_for(
    name: Layout, drawn: Callable[[Layout], Path], tmp_path: Path
) -> None:
    archive = Path(shutil.copytree(drawn(name), tmp_path / "archive"))
    config = profile_of(name, archive)
    source = config.source.open()
    images = sum(len(rows) for rows in source.studies.values())
    shard = plan_source(source, config, fingerprint="").shards[0]
    # Some of training, where enough is left of it.
    training = [row.path for _, ref in shard.studies[1:] for row in source.studies[ref]]
    lost = len(training[:3])
    for path in training[:3]:
        Path(path).unlink()
    with pytest.raises(InputError, match=rf"{lost} of {images} images are missing") as error:
        build_shards(profile_of(name, archive))
    assert str(error.value).endswith("by missing_images=drop")
    manifest = build_shards(profile_of(name, archive, "missing_images=drop"))
    assert manifest.dropped_by_reason["missing image"] == lost
    views = manifest.images_by_split_and_view.values()
    assert sum(sum(each.values()) for each in views) == images - lost
