"""Sources of small tables, and what they give of a study."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from data_shards.profiles import validate
from data_shards.records.study import Sample
from data_shards.sources.csv_pairs import CsvPairsConfig, CsvPairsSource

HEADER = ("image", "patient", "study", "view", "split", "text")
ROWS = (
    ("b/2.png", "p1", "s1", "LATERAL", "train", "FINDINGS: Clear.\nIMPRESSION: Normal."),
    ("b/1.png", "p1", "s1", "AP Supine", "train", "FINDINGS: Clear.\nIMPRESSION: Normal."),
    ("c.png", "p2", "s2", "frontal", "val", "A patient, with fever."),
)


def write_table(path: Path, rows: tuple[tuple[str, ...], ...]) -> Path:
    if ".jsonl" in path.name:
        lines = [json.dumps(dict(zip(HEADER, row, strict=True))) for row in rows]
    else:
        delimiter = "\t" if ".tsv" in path.name else ","
        lines = [delimiter.join(f'"{cell}"' for cell in row) for row in (HEADER, *rows)]
    text = "\n".join(lines) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8-sig" if path.suffix == ".csv" else "utf-8")
    return path


def source_of(table: Path, *, without: tuple[str, ...] = (), **values: object) -> CsvPairsSource:
    columns = {
        "image": "image",
        "patient_id": "patient",
        "study_id": "study",
        "view": "view",
        "split": "split",
        "report": "text",
    }
    kept = {key: column for key, column in columns.items() if key not in without}
    given = {"table": table, "image_root": table.parent, "columns": kept, **values}
    return CsvPairsSource(validate(CsvPairsConfig, given, where="profile"))


def sample_of(source: CsvPairsSource, patient_id: str, study_id: str) -> Sample:
    (ref,) = (
        r for r in source.list_studies() if (r.patient_id, r.study_id) == (patient_id, study_id)
    )
    loaded = source.load_study(ref)
    assert isinstance(loaded, Sample)
    return loaded
