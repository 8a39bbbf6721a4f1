from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_shards.errors import InputError
from data_shards.images.resize import convert_image
from data_shards.profiles import validate
from distributed_pretrain.benchmark.shards import (
    ShardsBenchmark,
    ShardsBenchmarkConfig,
    benchmark_shards,
    convert_bare,
    run,
)


def test_the_ceiling_does_the_same_work_as_the_builder(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 700), dtype=np.uint8)
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    Image.fromarray(noise).save(paths[0])
    Image.fromarray(noise.T[::-1]).save(paths[1])
    built = [convert_image(path, longest_side_px=160, jpeg_quality=90) for path in paths]
    bare = convert_bare(paths, longest_side_px=160, jpeg_quality=90)
    assert bare == sum(len(image.jpeg) for image in built)


def test_the_benchmark_builds_what_it_times() -> None:
    values = {"images": 6, "distinct_images": 2, "width_px": 64, "workers": 1}
    measured = benchmark_shards(validate(ShardsBenchmarkConfig, values, where="test"))
    assert measured.images == 6
    assert 0 < measured.bare_seconds < measured.build_seconds


def test_rates_are_per_core_and_the_ratio_is_of_rates() -> None:
    measured = ShardsBenchmark(images=100, workers=2, bare_seconds=5.0, build_seconds=10.0)
    assert measured.ceiling_per_core == 10.0
    assert measured.build_per_core == 5.0
    assert measured.ratio == 0.5


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(InputError, match=r"'image': did you mean 'images'\?"):
        run(["image=3"])
