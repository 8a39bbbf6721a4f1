"""Which files the members of samples are read from, as `data.reader` says."""

from __future__ import annotations

from collections.abc import Sequence

from data_shards.records.manifest import ShardEntry
from data_shards.remote.shards import ShardFiles
from distributed_pretrain.data.betons import Betons
from distributed_pretrain.data.stored_members import StoredMembers
from distributed_pretrain.data.tars import Tars


def stored_members(files: ShardFiles, entries: Sequence[ShardEntry]) -> StoredMembers:
    """What gives the members of a split's shards. Raises InputError as `Betons`.

    Of a split without a shard there is nothing to give, and no beton.
    """
    return Betons(files, entries) if files.reader == "ffcv" and entries else Tars(files, entries)
