"""Checksums and counts made right again after a change, as by a script that edits shards."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

Document = dict[str, Any]


def read_rows(path: Path) -> Document:
    """The index at `path`, with a mapping a sample in place of columns, as up to schema 2."""
    index: Document = json.loads(path.read_text())
    columns = index["samples"]
    if isinstance(columns, list):
        return index

    def present(place: int, name: str) -> Document:
        return {key: each[place] for key, each in columns[name].items() if each[place] is not None}

    index["samples"] = [
        {
            "key": key,
            "patient_id": columns["patient_ids"][place],
            "views": columns["views"][place],
            "members": {
                name: {field: values[place] for field, values in member.items()}
                for name, member in columns["members"].items()
                if member["offset"][place] is not None
            },
            "words": present(place, "words"),
        }
        for place, key in enumerate(columns["keys"])
    ]
    return index


def write_rows(path: Path, index: Document) -> None:
    """Write an index of rows as its schema has it: by columns, but up to schema 2."""
    rows = index["samples"]
    if index["schema_version"] > 2:

        def column(name: str, key: str) -> list[Any]:
            return [each[name].get(key) for each in rows]

        def names(name: str) -> list[str]:
            return sorted({key for each in rows for key in each[name]})

        members = {
            name: {
                field: [each["members"].get(name, {}).get(field) for each in rows]
                for field in ("offset", "size", "crc32")
            }
            for name in names("members")
        }
        columns = {
            "keys": [each["key"] for each in rows],
            "patient_ids": [each["patient_id"] for each in rows],
            "views": [each["views"] for each in rows],
            "members": members,
            "words": {name: column("words", name) for name in names("words")},
        }
        index = index | {"samples": columns}
    path.write_text(json.dumps(index))


def reseal(folder: Path) -> None:
    """Make all checksums, sizes and counts those of the tars and indexes as they lie there."""
    manifest = json.loads((folder / "manifest.json").read_text())
    samples_of: dict[str, list[Document]] = {}
    for entry in manifest["shards"]:
        index_path = folder / entry["index_name"]
        tar, index = (folder / entry["tar_name"]).read_bytes(), read_rows(index_path)
        index |= {"tar_bytes": len(tar), "tar_sha256": sha256(tar).hexdigest()}
        for sample in index["samples"]:
            for member in sample["members"].values():
                payload = tar[member["offset"] : member["offset"] + member["size"]]
                member["crc32"] = zlib.crc32(payload)
        write_rows(index_path, index)
        entry |= {
            "samples": len(index["samples"]),
            "bytes": len(tar),
            "sha256": index["tar_sha256"],
        }
        samples_of.setdefault(entry["split"], []).extend(index["samples"])
    for split, samples in samples_of.items():
        views = Counter(view or "unknown" for sample in samples for view in sample["views"])
        manifest["samples_by_split"][split] = len(samples)
        manifest["patients_by_split"][split] = len({each["patient_id"] for each in samples})
        manifest["images_by_split_and_view"][split] = dict(views)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    reseal_indexes(folder)


def reseal_indexes(folder: Path) -> None:
    """Make the manifest's checksums of the indexes right, whatever these say."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["shards"]:
        entry["index_sha256"] = sha256((folder / entry["index_name"]).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def rewrite_members(
    folder: Path, tar_name: str, change: Callable[[str, bytes], bytes | None]
) -> None:
    """Write a tar again, each member as `change(name, payload)` or without it, and seal it."""
    path, out = folder / tar_name, io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=out, mode="w") as new:
        for member in old:
            file = old.extractfile(member)
            assert file is not None
            payload = change(member.name, file.read())
            if payload is not None:
                member.size = len(payload)
                new.addfile(member, io.BytesIO(payload))
    path.write_bytes(out.getvalue())
    with tarfile.open(path) as archive:
        places = {each.name: {"offset": each.offset_data, "size": each.size} for each in archive}
    index_path = path.with_name(f"{path.stem}.index.json")
    index = read_rows(index_path)
    for sample in index["samples"]:
        names = [name for name in sample["members"] if f"{sample['key']}.{name}" in places]
        sample["members"] = {name: places[f"{sample['key']}.{name}"] for name in names}
    write_rows(index_path, index)
    reseal(folder)
