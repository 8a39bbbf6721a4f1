"""A whole run with a report encoder that is no BERT: trained, gone on from, evaluated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from distributed_pretrain.__main__ import main
from distributed_pretrain.data.tokenizer_training import train_byte_level_bpe
from distributed_pretrain.models.report_encoder import new_report_encoder
from distributed_pretrain.run_folder.metrics import is_timing

SIZES = (
    "vocabulary_size=300",
    "training.max_steps=6",
    "training.checkpoint_every_steps=3",
    "training.validate_every_steps=3",
)


def decided(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without the fields that time decides."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if not is_timing(k)} for line in lines]


def pretrain(profile: Path, folder: Path, *overrides: str) -> None:
    assert main(["pretrain", str(profile), f"run_folder={folder}", *SIZES, *overrides]) == 0


@pytest.fixture(scope="module")
def run(tiny_profile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of a new ModernBERT."""
    folder = tmp_path_factory.mktemp("modernbert") / "run"
    pretrain(tiny_profile, folder, "method.report_encoder.architecture=modernbert")
    return folder


def test_the_run_has_a_byte_level_tokenizer_of_its_reports(run: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(run / "tokenizer"))
    assert tokenizer.convert_ids_to_tokens(tokenizer(" no")["input_ids"][1:-1])[0].startswith("Ġ")
    weights = load_file(run / "checkpoints" / "last" / "model.safetensors")
    embeddings = weights["report_encoder.bert.embeddings.tok_embeddings.weight"]
    assert len(embeddings) == len(tokenizer) <= 300


def test_a_run_that_lost_its_last_steps_goes_on_with_the_same_tokenizer(
    run: Path, tiny_profile: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder, symlinks=True)
    shutil.rmtree(folder / "checkpoints" / "step_00000006")
    pretrain(tiny_profile, folder, "method.report_encoder.architecture=modernbert")
    assert decided(folder) == decided(run)
    starts = (folder / "starts.jsonl").read_text().splitlines()
    assert [json.loads(each)["step"] for each in starts] == [0, 3]
    for file in (run / "tokenizer").iterdir():
        assert (folder / "tokenizer" / file.name).read_bytes() == file.read_bytes()
    found, expected = (
        load_file(each / "checkpoints" / "last" / "model.safetensors") for each in (folder, run)
    )
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_run_is_evaluated(run: Path) -> None:
    assert main(["evaluate", str(run), "split=validate", "labelled_studies=16"]) == 0
    figures = json.loads((run / "evaluation_validate_best.json").read_text())
    assert figures["samples"] == 20
    assert 0 <= figures["image_to_report_recall_at_5"] <= 1


def test_a_pretrained_folder_brings_its_own_tokenizer(tiny_profile: Path, tmp_path: Path) -> None:
    pretrained = tmp_path / "pretrained"
    train_byte_level_bpe(["No effusion is seen."], pretrained, vocabulary_size=270)
    encoder = new_report_encoder(
        270, architecture="modernbert", hidden_size=16, layers=2, heads=2, intermediate_size=32
    )
    encoder.bert.save_pretrained(pretrained)
    folder = tmp_path / "run"
    choice = json.dumps({"name": "pretrained", "model": str(pretrained), "frozen_layers": 1})
    pretrain(tiny_profile, folder, f"method.report_encoder={choice}")
    used, own = (each / "tokenizer.json" for each in (folder / "tokenizer", pretrained))
    assert json.loads(used.read_text())["model"] == json.loads(own.read_text())["model"]
    trained = load_file(folder / "checkpoints" / "last" / "model.safetensors")
    for name, value in encoder.state_dict().items():
        frozen = name.startswith(("bert.embeddings.", "bert.layers.0."))
        assert torch.equal(trained[f"report_encoder.{name}"], value) == frozen, name
