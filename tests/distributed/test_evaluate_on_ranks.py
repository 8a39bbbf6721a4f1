"""`evaluate` shared by two ranks has the figures of one process, in one file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data_shards.building.settings import ShardsConfig
from data_shards.profiles import validate
from distributed_pretrain.pretrain.build import pretrain
from distributed_pretrain.run_folder.folder import RunFolder
from tests.data_shards.building.whole import build_shards
from tests.distributed.ranks import Ranks, start_command
from tests.processor import bound
from tests.tiny.methods import tiny_profile

pytestmark = [pytest.mark.xdist_group("ranks"), pytest.mark.timeout(120)]

# More than whole batches, and an odd rest: one rank has a row that only fills up.
TEST_STUDIES = 11
GLOBAL_BATCH = 4
Trained = Callable[[str], Path]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies with boxes of phrases, masks, labels and laterals."""
    folder = tmp_path_factory.mktemp("evaluated")
    counts = {"train_studies": 18, "validate_studies": 4, "test_studies": TEST_STUDIES}
    values = {
        "phantom": {"archive": folder / "archive", "image_size_px": 64, **counts},
        "source": {"name": "mimic_cxr"},
        "output": folder / "shards",
        "longest_side_px": 64,
        "samples_per_shard": 8,
        "workers": 1,
    }
    build_shards(validate(ShardsConfig, values, where="test"))
    return folder / "shards"


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The run folder of a method's few steps."""

    def train(name: str) -> Path:
        run = tmp_path_factory.mktemp("run") / name
        config = tiny_profile(name)
        data = {"shards": shards, "global_batch": GLOBAL_BATCH, "image_size_px": 64}
        training = {"max_steps": 2, "pictures": False, "accumulation_steps": 1}
        assert pretrain(
            config.model_copy(
                update={
                    "run_folder": run,
                    "data": config.data.model_copy(update=data),
                    "training": config.training.model_copy(update=training),
                }
            )
        )
        return run

    return train


def evaluate(run: Path, *overrides: str, world_size: int, folder: Path) -> Ranks:
    return start_command(
        "evaluate",
        run,
        *("checkpoint=last", "labelled_studies=13", *overrides),
        world_size=world_size,
        folder=folder,
    )


@pytest.mark.parametrize("name", ["phantom_lovt", "phantom_limitr"])
def test_two_ranks_have_the_figures_of_one_process(
    name: str, trained: Trained, tmp_path: Path
) -> None:
    run = trained(name)
    path = RunFolder(run).evaluation("test", "last")
    figures, printed = [], []
    for world_size in (1, 2):
        ranks = evaluate(run, world_size=world_size, folder=tmp_path / str(world_size))
        ranks.complete()
        figures.append(json.loads(path.read_text()))
        path.unlink()
        printed.append([process.printed for process in ranks.processes])
    alone, shared = figures
    assert list(shared) == list(alone)
    # Some are small differences of terms around 10.
    assert shared == pytest.approx(alone, rel=1e-4, abs=bound(1e-6, elsewhere=1e-5))
    assert alone["samples"] == TEST_STUDIES
    expected = {"recall_at_1", "grounding_cnr", "grounding_cropped_pointing"}
    assert expected | {"linear_dice", "linear_auroc"} <= alone.keys()
    # Rank 0 prints the table, once.
    assert printed[1][0].count("samples") == 1
    assert printed[1][1] == ""


def test_what_is_wrong_ends_every_rank_and_writes_nothing(trained: Trained, tmp_path: Path) -> None:
    run = trained("phantom_clip")
    before = sorted(run.iterdir())
    ranks = evaluate(run, "labels=[Unheard]", world_size=2, folder=tmp_path / "labels")
    assert ranks.wait() == [2, 2]
    said = ranks.said(0) + ranks.said(1)
    assert said.count("error: ") == said.count("'Unheard' is no label of the 13 labelled") == 1
    ranks = evaluate(run, world_size=3, folder=tmp_path / "three")
    assert ranks.wait() == [2, 2, 2]
    said = "".join(ranks.said(rank) for rank in range(3))
    assert f"3 ranks cannot share the run's batches of {GLOBAL_BATCH}" in said
    assert "use 1 or 2\n" in said
    assert sorted(run.iterdir()) == before
