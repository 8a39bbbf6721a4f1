"""What a layout is: how one data set's archive lies on disk, and what its importer is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, TypeAlias

from data_shards.phantom.study import Study

# Rows by table: plain lists, which are kept as JSON while an archive is being drawn.
Rows: TypeAlias = dict[str, list[list[Any]]]


class Layout(Protocol):
    """A module of this folder."""

    def importer_settings(self, archive: Path) -> dict[str, Any]:
        """What the importer of this layout is told in `source`, where the profile does not say."""
        ...

    def write_study(
        self, archive: Path, study: Study, *, seed: int, height_px: int, noise: float
    ) -> Rows:
        """Draw a study, write its files, and return what the tables say of it."""
        ...

    def write_tables(self, archive: Path, rows: Rows) -> None:
        """Write the tables of all studies: the same bytes for the same rows, in any order."""
        ...
