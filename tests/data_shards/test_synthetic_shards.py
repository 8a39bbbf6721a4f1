from pathlib import Path

from data_shards.checking.verify import verify_shards
from data_shards.records.manifest import read_manifest
from data_shards.synthetic_shards import write_synthetic_shards


def test_synthetic_shards_are_what_the_builder_would_have_written(tmp_path: Path) -> None:
    write_synthetic_shards(
        tmp_path,
        studies={"train": 10, "validate": 3},
        studies_a_shard=4,
        views=("L", "PA"),
        longest_side_px=40,
        labels=("Edema",),
    )
    verification = verify_shards(tmp_path, workers=1)
    assert (verification.problems, verification.warnings) == ((), ())
    assert (verification.shards, verification.samples, verification.images) == (4, 13, 26)
    manifest = read_manifest(tmp_path)
    assert manifest.samples_by_split == {"train": 10, "validate": 3, "test": 0}
    assert manifest.images_by_split_and_view["validate"] == {"L": 3, "PA": 3}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_synthetic_shards(
            tmp_path / name, studies={"train": 2}, studies_a_shard=2, longest_side_px=40, seed=seed
        )
    a, b, c = ((tmp_path / name / "train-000000.tar").read_bytes() for name in "abc")
    assert a == b != c
