from pathlib import Path

import numpy as np
from PIL import Image

from data_shards.images.conversion import convert_image
from distributed_pretrain.benchmark.shards import convert_bare


def test_the_ceiling_does_the_same_work_as_the_builder(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 700), dtype=np.uint8)
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    Image.fromarray(noise).save(paths[0])
    Image.fromarray(noise.T[::-1]).save(paths[1])
    built = [convert_image(path, longest_side_px=160, jpeg_quality=90) for path in paths]
    bare = convert_bare(paths, longest_side_px=160, jpeg_quality=90)
    assert bare == sum(len(jpeg) for jpeg, *_ in built)
