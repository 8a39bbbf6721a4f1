from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.sources.chexpert import LABELS, ChexpertConfig
from tests.data_shards.sources.tables_on_disk import samples_of, source_of, touch, write_lines

# The two labels that rows here have, then the twelve that they leave empty.
OTHERS = tuple(label for label in LABELS if label not in ("No Finding", "Edema"))
HEADER = ",".join(("Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema", *OTHERS))
TRAIN = (
    "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Male,50,Frontal,AP,,-1.0",
    "CheXpert-v1.0/train/patient00001/study1/view2_lateral.jpg,Male,50,Lateral,,,-1.0",
    "train/patient00002/study1/view1_frontal.jpg,Female,50,Frontal,,1.0,",
)
VALID = (
    "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg,Male,9,Frontal,PA,0.0,1.0",
)


def whole(row: str) -> str:
    """The row with its empty cells."""
    return row + "," * (HEADER.count(",") - row.count(","))


def archive(root: Path, *train: str) -> Path:
    write_lines(root / "train.csv", HEADER, *map(whole, train or TRAIN))
    write_lines(root / "valid.csv", HEADER, *map(whole, VALID))
    return root


def test_paths_of_both_sizes_views_and_uncertain_labels_are_read(tmp_path: Path) -> None:
    source = source_of(ChexpertConfig, root=archive(tmp_path))
    by_patient = {ref.patient_id: source.load_study(ref) for ref in source.list_studies()}
    one, two, valid = (by_patient[f"patient{n}"] for n in ("00001", "00002", "64541"))
    assert not isinstance(one, str)
    assert not isinstance(two, str)
    assert not isinstance(valid, str)
    assert [(image.view, str(image.path)) for image in one.images] == [
        ("AP", f"{tmp_path}/train/patient00001/study1/view1_frontal.jpg"),
        ("L", f"{tmp_path}/train/patient00001/study1/view2_lateral.jpg"),
    ]
    assert one.labels == {**dict.fromkeys(LABELS), "Edema": -1.0}
    # A frontal of unknown direction counts as PA.
    assert [image.view for image in two.images] == ["PA"]
    assert (one.split, valid.split) == (None, "test")
    assert valid.images[0].listed == f"{tmp_path}/valid.csv: line 2"


def test_images_that_no_table_names_are_counted(tmp_path: Path) -> None:
    root = archive(tmp_path)
    names = ("train/patient00002/study1/view1_frontal.jpg", "train/patient00009/study1/view1.jpg")
    touch(root, names)
    dropped = source_of(ChexpertConfig, root=root).list_dropped_images()
    assert [(each.key, each.reason) for each in dropped] == [
        ("train/patient00009/study1/view1", "not in the table of labels")
    ]


def test_valid_may_be_the_validation(tmp_path: Path) -> None:
    source = source_of(ChexpertConfig, root=archive(tmp_path), valid_table="validate")
    assert {(ref.patient_id, ref.split) for ref in source.list_studies()} == {
        ("patient00001", "train"),
        ("patient00002", "train"),
        ("patient64541", "validate"),
    }


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("images/1.jpg,Male,50,Frontal,AP,,", r"train.csv: line 2: Path 'images/1.jpg': expected"),
        (TRAIN[2].replace("1.0,", "7,"), "line 2: column 'No Finding': label '7': expected 1"),
        (TRAIN[2].replace("Frontal,,", "Oblique,,"), "unknown view 'Oblique'"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(row: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        source_of(ChexpertConfig, root=archive(tmp_path, row)).list_studies()


def test_views_of_a_study_with_other_labels_are_refused(tmp_path: Path) -> None:
    root = archive(tmp_path, TRAIN[0], TRAIN[1].replace("-1.0", "1.0"))
    with pytest.raises(InputError, match=r"train.csv: line 3: .* has another label than in line 2"):
        source_of(ChexpertConfig, root=root).list_studies()
    assert len(samples_of(source_of(ChexpertConfig, root=root, conflicts="first"))) == 1


def test_all_fourteen_labels_must_be_there_and_other_columns_may(tmp_path: Path) -> None:
    root = archive(tmp_path)
    rows = [whole(row)[:-1] for row in TRAIN]
    write_lines(root / "train.csv", HEADER.replace(",Fracture", ""), *rows)
    with pytest.raises(InputError, match=r"train.csv: no column 'Fracture'"):
        source_of(ChexpertConfig, root=root).list_studies()
    # As pandas writes a table with its index.
    indexed = [f"{number},{whole(row)}" for number, row in enumerate(TRAIN)]
    write_lines(root / "train.csv", f",{HEADER}", *indexed)
    samples = samples_of(source_of(ChexpertConfig, root=root))
    assert all(tuple(sample.labels) == LABELS for sample in samples.values())
