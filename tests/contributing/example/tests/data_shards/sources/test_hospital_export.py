"""The export of one hospital: an exam whose report was not exported is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.sources.hospital_export import HospitalExportConfig
from tests.data_shards.sources.archives.hospital_export import write
from tests.data_shards.sources.tiny_archive import TinyImage


def test_an_exam_without_its_report_is_refused_by_line_and_file(tmp_path: Path) -> None:
    write(tmp_path, [TinyImage("a", "p", "e1"), TinyImage("b", "p", "e2")])
    (tmp_path / "reports" / "e2.txt").unlink()
    source = HospitalExportConfig(root=tmp_path).open()
    with pytest.raises(InputError, match=r"exams\.tsv: line 3: .*e2\.txt is missing"):
        source.list_studies()
