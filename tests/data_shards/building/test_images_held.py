"""A build of N workers holds N images at most: each one, however many a study or a shard has."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from PIL import Image

from data_shards.building.plan import plan_source
from data_shards.building.settings import ShardsConfig
from data_shards.building.shard_writer import ShardContext, write_shard
from data_shards.images.layout import Size
from data_shards.images.picture import Picture
from data_shards.processes import Progress, map_in_processes
from data_shards.records.study import ImageFile
from data_shards.sources.csv_pairs import CsvPairsConfig, CsvPairsSource
from data_shards.sources.image_row import ImageRow

_decode = Picture.decoded
_held: list[weakref.ref[Image.Image]] = []


def counted(log: Path, picture: Picture, *, least: Size | None = None) -> Image.Image:
    """Decodes, and adds a line with how many decoded images this process holds now."""
    image = _decode(picture, least=least)
    _held.append(weakref.ref(image))
    with (log / str(os.getpid())).open("a") as file:
        print(sum(each() is not None for each in _held), file=file)
    return image


@dataclass(frozen=True)
class WatchedFile:
    """Has whatever process reads it count what it decodes, in a file of its own in `log`."""

    path: Path
    log: Path

    def stat(self) -> os.stat_result:
        return self.path.stat()

    def read_bytes(self) -> bytes:
        patch.object(
            Picture, "decoded", lambda *args, **named: counted(self.log, *args, **named)
        ).start()
        return self.path.read_bytes()


class WatchedSource(CsvPairsSource):
    def file_of(self, row: ImageRow) -> ImageFile:
        path = Path(row.path)
        return WatchedFile(path, path.parents[2] / "held")


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_each_worker_holds_one_decoded_image_at_a_time(
    workers: int,
    make_config: Callable[..., ShardsConfig],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    log = tmp_path / "held"
    log.mkdir()
    request.addfinalizer(patch.stopall)
    config = make_config()
    config.output.mkdir()
    assert isinstance(config.source, CsvPairsConfig)
    source = WatchedSource(config.source)
    plan = plan_source(source, config, fingerprint="")
    context = ShardContext(config, source, plan.sha256, config.output)
    with Progress("build", total=28, unit="studies") as progress:
        map_in_processes(write_shard, context, plan.shards, workers=workers, progress=progress)
    held = {path.name: path.read_text().split() for path in log.iterdir()}
    assert len(held) <= workers
    assert sum(map(len, held.values())) == 42
    assert {count for counts in held.values() for count in counts} == {"1"}
