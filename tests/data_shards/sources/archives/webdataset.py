"""Tars in WebDataset's naming: an image and a JSON member a sample."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.data_shards.sources.tiny_archive import TinyImage, draw_image

EXEMPT: Mapping[str, str] = {
    "a missing image": "images lie in the tars: a sample without one is counted",
}


def write(root: Path, images: Sequence[TinyImage]) -> dict[str, Any]:
    """Write `images` below `root`, in two tars; what a profile says in `source`."""
    half = len(images) // 2
    for number, part in enumerate((images[:half], images[half:])):
        members: list[tuple[str, bytes]] = []
        for each in part:
            drawn = root / f"{each.id}.png"
            draw_image(drawn)
            members.append((f"{each.id}.png", drawn.read_bytes()))
            drawn.unlink()
            said = {"patient": each.patient, "study": each.study, "view": each.view}
            said |= {"split": each.split, "text": each.report}
            members.append((f"{each.id}.json", json.dumps(said).encode()))
        write_tar(root / f"shard-{number}.tar", members)
    fields = {"patient_id": "patient", "study_id": "study", "view": "view", "split": "split"}
    return {"name": "webdataset", "folder": root, "fields": {**fields, "report": "text"}}


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    """A tar of these members, in this order."""
    with tarfile.open(path, "w") as archive:
        for name, payload in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(payload)
            archive.addfile(entry, io.BytesIO(payload))
