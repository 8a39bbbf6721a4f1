"""What a build would find, told before it starts; and folders that are half there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_shards.__main__ import main
from data_shards.building import inspect
from data_shards.building.inspect import inspect_source
from data_shards.building.settings import ShardsConfig
from data_shards.building.study_conversion import convert_study
from data_shards.errors import InputError
from tests.data_shards.building.whole import build_shards

MakeConfig = Callable[..., ShardsConfig]


def test_a_sound_source_is_counted_tried_and_estimated(make_config: MakeConfig) -> None:
    config = make_config()
    told = inspect_source(config)
    assert "found: 28 studies of 14 patients, 42 images" in told
    assert "missing: none of 42 images looked for" in told
    assert told.count("100 x 120 px stored as 53 x 64") >= 3
    assert "2 sentences in free text" in told
    estimate = told.splitlines()[-1]
    assert "a build: about " in estimate
    assert f"in {config.output}" in estimate
    assert not config.output.exists()


def test_a_dry_run_of_build_is_inspect(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*arguments: str) -> list[str]:
        assert main([*arguments]) == 0
        # The estimate is of a clock.
        return capsys.readouterr().out.splitlines()[:-1]

    dry = told("build", str(profile), "--dry-run", "longest_side_px=48")
    assert dry == told("inspect", str(profile), "longest_side_px=48") != []
    assert not (profile.parent / "shards").exists()


def test_the_estimate_of_bytes_is_near_what_is_written(make_config: MakeConfig) -> None:
    config = make_config()
    estimate = next(w for w in inspect_source(config).split(", ") if f" in {config.output}" in w)
    number, unit = estimate.split()[:2]
    build_shards(config)
    written = sum(path.stat().st_size for path in config.output.glob("*.tar"))
    # Tars end with padding up to 10 KiB, which counts in a set as small as this.
    assert written / 2 < float(number) * {"KB": 1e3, "MB": 1e6}[unit] < written


def test_the_estimate_of_time_leaves_out_what_the_first_study_alone_waits_for(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    waits = iter([100.0] + [1.0] * 11)

    def convert(*arguments: Any, **settings: Any) -> Any:
        clock[0] += next(waits)
        return convert_study(*arguments, **settings)

    monkeypatch.setattr(inspect, "convert_study", convert)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    # 28 studies of a second each.
    assert "a build: about 28 s on 1 core, " in inspect_source(make_config(workers=1))


def test_studies_that_fail_are_named_as_the_shards_would_name_them(
    make_config: MakeConfig, archive: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 32)
    for path in (archive / "images").iterdir():
        path.write_bytes(b"no picture")
    source = make_config().source.open()
    ids = {ref.study_id for ref in source.list_studies()}
    told = inspect_source(make_config(hash_ids=key)).splitlines()
    named = [line.split()[1].rstrip(":") for line in told if line.startswith("study ")]
    assert len(named) == inspect.SHOWN
    assert not ids.intersection(named)


def test_half_a_folder_is_refused_with_how_much_of_it_is_missing(
    make_config: MakeConfig, archive: Path
) -> None:
    absent = [archive / "images" / f"p{patient}_s0_PA.jpg" for patient in range(3)]
    for path in absent:
        path.unlink()
    told = inspect_source(make_config())
    assert "missing: 3 of 42 images are missing (first: " in told
    with pytest.raises(InputError, match=r"3 of 42 images .*missing_images=drop") as error:
        build_shards(make_config())
    assert "missing image" in str(error.value)
    assert "\n" not in str(error.value)
    manifest = build_shards(make_config(missing_images="drop"))
    assert manifest.dropped_by_reason == {"missing image": 3}


def test_those_that_are_damaged_stop_a_build_that_goes_on_without_the_missing(
    make_config: MakeConfig, archive: Path, tmp_path: Path
) -> None:
    (archive / "images" / "p1_s0_PA.jpg").unlink()
    (archive / "images" / "p0_s0_PA.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="text, not a JPEG"):
        build_shards(make_config(missing_images="drop"))
    with pytest.raises(InputError, match="missing image"):
        build_shards(
            make_config(missing_images="stop", bad_images="drop", output=tmp_path / "other")
        )


def test_a_study_that_cannot_be_read_is_told_and_the_others_are_tried(
    make_config: MakeConfig, archive: Path
) -> None:
    (archive / "images" / "p0_s0_PA.jpg").write_bytes(b"no picture")
    told = inspect_source(make_config())
    assert "text, not a JPEG" in told
    assert "a build: about " in told
