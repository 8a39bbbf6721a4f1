"""Tars as other programs write them: joined, linked, packed, sparse, with names of any length."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from data_shards.errors import InputError
from data_shards.sources.formats.web_tars import no_tar, read_samples
from tests.data_shards.sources.archives.webdataset import write_tar


def entry(name: str, payload: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, io.BytesIO]:
    member = tarfile.TarInfo(name)
    member.size = len(payload)
    for field, value in fields.items():
        setattr(member, field, value)
    return member, io.BytesIO(payload)


def tar_of(
    path: Path, *entries: tuple[tarfile.TarInfo, io.BytesIO], kind: int = tarfile.PAX_FORMAT
) -> Path:
    with tarfile.open(path, "w", format=kind) as archive:
        for member, payload in entries:
            archive.addfile(member, payload)
    return path


def read(tar: Path) -> dict[str, dict[str, bytes]]:
    """The payloads by sample and member."""
    return {
        sample.key: {name: path.read_bytes() for name, path in sample.members.items()}
        for sample in read_samples(tar)
    }


def test_members_of_a_sample_need_not_be_side_by_side(tmp_path: Path) -> None:
    members = [("b.jpg", b"1"), ("a.txt", b"2"), ("b.txt", b"3"), ("a.jpg", b"4")]
    write_tar(tmp_path / "t.tar", members)
    assert read(tmp_path / "t.tar") == {
        "b": {"jpg": b"1", "txt": b"3"},
        "a": {"txt": b"2", "jpg": b"4"},
    }
    assert list(read(tmp_path / "t.tar")) == ["b", "a"]


@pytest.mark.parametrize("between", [0, 512, 512 * 7])
def test_tars_joined_by_cat_are_read_to_the_last_one(tmp_path: Path, between: int) -> None:
    whole = b""
    for number in range(3):
        part = tmp_path / "part.tar"
        write_tar(part, [(f"{number}.jpg", bytes([number])), (f"{number}.txt", b"x")])
        whole += part.read_bytes() + bytes(between)
    (tmp_path / "t.tar").write_bytes(whole)
    assert read(tmp_path / "t.tar") == {
        str(number): {"jpg": bytes([number]), "txt": b"x"} for number in range(3)
    }


def test_a_key_of_two_joined_tars_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "part.tar", [("0.jpg", b"x")])
    (tmp_path / "t.tar").write_bytes((tmp_path / "part.tar").read_bytes() * 2)
    with pytest.raises(InputError, match=r"t.tar: sample 0: .*member jpg is there twice: .*key"):
        read_samples(tmp_path / "t.tar")


@pytest.mark.parametrize("behind", [b"\n", b"signature" * 100, b"\0" * 512 + b"x"])
def test_other_bytes_behind_the_end_are_told(tmp_path: Path, behind: bytes) -> None:
    write_tar(tmp_path / "t.tar", [("0.jpg", b"x")])
    with (tmp_path / "t.tar").open("ab") as file:
        file.write(behind)
    with pytest.raises(InputError, match=r"what begins at byte 1\d,\d+, behind its end"):
        read_samples(tmp_path / "t.tar")


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_links_are_what_they_lead_to(tmp_path: Path, kind: bytes) -> None:
    target = "f/a.jpg" if kind == tarfile.LNKTYPE else "./a.jpg"
    tar = tar_of(
        tmp_path / "t.tar",
        entry("f/a.jpg", b"picture"),
        entry("f/b.jpg", type=kind, linkname=target),
        entry("./f/b.txt", b"text"),
    )
    assert read(tar) == {"f/a": {"jpg": b"picture"}, "f/b": {"jpg": b"picture", "txt": b"text"}}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"type": tarfile.LNKTYPE, "linkname": "gone.jpg"}, "a link to gone.jpg, which is not in"),
        ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "a link to /etc/passwd, which is"),
        ({"type": tarfile.SYMTYPE, "linkname": "a.jpg"}, "a link to a.jpg, which is not in"),
        ({"type": tarfile.FIFOTYPE}, "no plain file .type '6'"),
        ({"type": tarfile.CHRTYPE}, "no plain file .type '3'"),
    ],
)
def test_what_is_no_file_is_refused_by_its_cause(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    tar = tar_of(tmp_path / "t.tar", entry("a.jpg", **fields))
    with pytest.raises(InputError, match=rf"t.tar: member a.jpg is {said}.*dereference"):
        read_samples(tar)


@pytest.mark.skipif(sys.platform != "linux", reason="needs GNU tar, which Linux has")
@pytest.mark.parametrize("kind", ["gnu", "posix"])
def test_sparse_files_are_refused_not_read_in_pieces(tmp_path: Path, kind: str) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    command = ["tar", f"--format={kind}", "--sparse", "-cf", "t.tar", "a.jpg"]
    subprocess.run(command, cwd=tmp_path, check=True)
    with pytest.raises(InputError, match=r"member a.jpg is a sparse file, .*without --sparse"):
        read_samples(tmp_path / "t.tar")


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names_are_whole(tmp_path: Path, kind: int) -> None:
    key = f"{'folder' * 30}/Größe {'k' * 180}"
    tar = tar_of(
        tmp_path / "t.tar", entry(f"{key}.jpg", b"1"), entry(f"{key}.txt", b"2"), kind=kind
    )
    assert read(tar) == {key: {"jpg": b"1", "txt": b"2"}}


@pytest.mark.parametrize(
    ("name", "said"),
    [("M\udcfcller.jpg", "not UTF-8: rename"), ("a\nb.jpg", "U.000A"), ("a\u200b.jpg", "U.200B")],
)
def test_names_that_cannot_be_written_or_seen_are_refused(
    tmp_path: Path, name: str, said: str
) -> None:
    tar = tar_of(tmp_path / "t.tar", entry(name, b"1"), kind=tarfile.GNU_FORMAT)
    with pytest.raises(InputError, match=f"t.tar: member .*: its name .*{said}"):
        read_samples(tar)


@pytest.mark.parametrize(
    ("packed", "said"),
    [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")],
)
def test_a_compressed_tar_is_called_so_whatever_its_name(
    tmp_path: Path, packed: Any, said: str
) -> None:
    write_tar(tmp_path / "a.tar", [("0.jpg", b"x")])
    (tmp_path / "t.tar").write_bytes(packed((tmp_path / "a.tar").read_bytes()))
    with pytest.raises(InputError, match=rf"t.tar: compressed .{said}.: unpack it"):
        read_samples(tmp_path / "t.tar")


def test_where_all_tars_are_compressed_the_first_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.tar.gz").touch()
    (tmp_path / "a.TGZ").touch()
    assert "check both, and unpack a.TGZ, which is compressed" in no_tar(tmp_path, "*.tar")
    assert no_tar(tmp_path / "none", "*.tar").endswith("check both")


def test_folders_hidden_files_and_names_without_a_dot_are_no_members(tmp_path: Path) -> None:
    tar = tar_of(
        tmp_path / "t.tar",
        entry("f.v1", type=tarfile.DIRTYPE),
        entry("f.v1/._a.jpg", b"macOS"),
        entry("f.v1/README", b"x"),
        entry("f.v1/a.b.JPG", b"1"),
    )
    assert read(tar) == {"f.v1/a": {"b.jpg": b"1"}}
