"""What a profile can say of how shards come from a store elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from data_shards.profiles import Config


class CacheConfig(Config):
    """Where files of a store are kept on this machine, and how long one is waited for.

    `folder` null is `radalign/shards` in $XDG_CACHE_HOME or ~/.cache; processes of one machine
    share it. Besides manifests it holds at most `size_gib`: the files used longest ago make room. A
    store that says nothing for `timeout_seconds` is asked again, after waits that double up to half
    a minute, until `patience_seconds` have passed without the file.
    """

    folder: Path | None = None
    size_gib: float = Field(default=100, gt=0)
    timeout_seconds: float = Field(default=60, gt=0)
    patience_seconds: float = Field(default=900, ge=0)

    @property
    def place(self) -> Path:
        """The folder."""
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return self.folder or Path(home) / "radalign" / "shards"

    @property
    def size_bytes(self) -> int:
        """The most that it holds."""
        return int(self.size_gib * 2**30)
