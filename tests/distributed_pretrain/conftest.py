"""Phantom studies for the tests of the data path: drawn and built once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.building.settings import ShardsConfig
from data_shards.profiles import validate
from distributed_pretrain.data.tokenization import SentenceTokenizer
from distributed_pretrain.data.tokenizer_training import train_wordpiece
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
