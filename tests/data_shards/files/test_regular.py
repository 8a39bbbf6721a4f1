"""Files that anybody may have damaged or planted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.files.regular import read_document, read_regular


def test_a_document_of_a_size_that_cannot_be_meant_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.touch()
    os.truncate(path, 2**30 + 1)  # sparse: no byte of it lies on the disk
    with pytest.raises(InputError, match=r"manifest\.json: 1,073,741,825 bytes are no such file"):
        read_document(path)


@pytest.mark.parametrize("read", [read_document, read_regular])
def test_pipes_and_links_to_nothing_do_not_hang_the_reader(
    read: Callable[[Path], bytes], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(InputError, match="pipe: a pipe, and should be a file"):
        read(tmp_path / "pipe")
    with pytest.raises(InputError, match="link: a link to nowhere"):
        read(tmp_path / "link")
