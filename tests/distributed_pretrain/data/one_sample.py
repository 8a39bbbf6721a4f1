"""One sample, as the loader reads several."""

from __future__ import annotations

from distributed_pretrain.data.quarantine import BadSampleError
from distributed_pretrain.data.sample import LoadedSample, load_samples
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import ShardSplit


def load_sample(
    split: ShardSplit, config: DataConfig, *, position: int, seed: int = 0, epoch: int | None = None
) -> LoadedSample:
    """The sample at `position`; raises the error that it is, if it cannot be read."""
    [found] = load_samples(split, config, [position], seed=seed, epoch=epoch)
    if isinstance(found, BadSampleError):
        raise found
    return found
