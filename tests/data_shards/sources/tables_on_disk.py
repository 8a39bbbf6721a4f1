"""Small published tables beside files that are never decoded, and what a source makes of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_shards.profiles import validate
from data_shards.records.study import Sample
from data_shards.sources.base import Source, SourceConfig


def write_lines(path: Path, *lines: str) -> Path:
    """A table of these lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def touch(folder: Path, names: Iterable[str]) -> None:
    """Empty files of these names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def source_of(kind: type[SourceConfig], **values: Any) -> Source:
    """The source of these settings, as a profile's."""
    return validate(kind, values, where="source").open()


def samples_of(source: Source) -> dict[str, Sample]:
    """Every study by its id."""
    samples = {}
    for ref in source.list_studies():
        sample = source.load_study(ref)
        assert isinstance(sample, Sample)
        samples[sample.study_id] = sample
    return samples
