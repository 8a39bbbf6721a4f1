"""Phantom studies, drawn and built once a session, and a small encoder's run."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.building.settings import ShardsConfig
from data_shards.profiles import load_profile, validate
from distributed_pretrain.data.tokenization import SentenceTokenizer
from distributed_pretrain.data.tokenizer_training import train_wordpiece
from distributed_pretrain.pretrain.build import pretrain
from distributed_pretrain.pretrain.settings import PretrainConfig
from tests.data_shards.building.whole import build_shards
from tests.distributed_pretrain.phantom_batches import STUDIES


@pytest.fixture(scope="session")
def phantom_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training split of `STUDIES` studies, with labels and most with a lateral."""
    folder = tmp_path_factory.mktemp("phantom")
    counts = {"train_studies": STUDIES, "validate_studies": 2, "test_studies": 2}
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


@pytest.fixture(scope="session")
def small_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> SentenceTokenizer:
    """A WordPiece tokenizer of few words, which splits the others into pieces."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_wordpiece(["The lungs are clear.", "No effusion."], folder, vocabulary_size=100)
    return SentenceTokenizer.load(folder)


@pytest.fixture(scope="session")
def drawn_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many studies as have every finding in each split."""
    folder = tmp_path_factory.mktemp("drawn")
    counts = {"train_studies": 32, "validate_studies": 24, "test_studies": 24}
    values = {
        "phantom": {"archive": folder / "archive", "image_size_px": 64, "seed": 3, **counts},
        "source": {"name": "mimic_cxr"},
        "output": folder / "shards",
        "longest_side_px": 64,
        "samples_per_shard": 16,
        "workers": 1,
    }
    build_shards(validate(ShardsConfig, values, where="test"))
    return folder / "shards"


@pytest.fixture(scope="session")
def tiny_run(tiny_profile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one step."""
    folder = tmp_path_factory.mktemp("encoder") / "run"
    asked = [f"run_folder={folder}", "training.max_steps=1", "training.pictures=false"]
    assert pretrain(load_profile(PretrainConfig, tiny_profile, asked))
    return folder
