"""What verbs that read finished shards can be told of where these lie."""

from __future__ import annotations

from data_shards.building.settings import ShardsConfig
from data_shards.profiles import Config
from data_shards.remote.settings import CacheConfig
from data_shards.remote.shards import ShardFiles, Shards, shard_files


class _Store(Config):
    cache: CacheConfig = CacheConfig()


class _Place(_Store):
    shards: Shards | None = None


class StoreConfig(Config):
    """`data.cache` is where files of a store go, by the names that a run's profile has for it."""

    data: _Store = _Store()


class FinishedShardsConfig(ShardsConfig):
    """The profile of a build; `data.shards` says where its shards are now, if not in `output`.

    A folder, or an address in a store, as in a run's profile.
    """

    data: _Place = _Place()

    def files(self) -> ShardFiles:
        """Where they lie. Raises InputError and StoreError for a store that does not give them."""
        return shard_files(self.data.shards or self.output, self.data.cache)
