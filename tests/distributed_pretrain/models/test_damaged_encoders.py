"""Folders of encoders that are damaged or bring code: refused in one line, and nothing is run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from data_shards.errors import InputError
from distributed_pretrain.models.image_encoder import make_image_encoder
from distributed_pretrain.models.report_encoder import pretrained_report_encoder


def damage_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:200])


def lose_a_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["encoder.layer.0.attention.self.query.weight"]
    save_file(tensors, path, metadata={"format": "pt"})


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert", "num_hidden_layers": "many"}')


def bring_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    named = {"model_type": "evil", "auto_map": {"AutoModel": "evil.Evil"}}
    (folder / "config.json").write_text(json.dumps(config | named))
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")


def pickle_code(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Evil(folder / "ran")}, folder / "pytorch_model.bin")


class Evil:
    """Makes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_weights, "no text encoder could be loaded"),
        (lose_a_tensor, "weights without 'encoder.layer.0.attention.self.query.weight'"),
        (damage_config, "no text encoder could be loaded"),
        (bring_code, "names code of its own"),
        (pickle_code, "no text encoder could be loaded"),
    ],
)
def test_a_folder_that_is_damaged_or_brings_code_is_refused(
    damage: Callable[[Path], None],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=40, intermediate_size=32, **sizes)
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    damage(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    with pytest.raises(InputError, match=said):
        pretrained_report_encoder(str(tmp_path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "payload", [b"", b"\x80\x02.", b"PK\x03\x04" + bytes(50), b"<html>", b"\xff" * 100]
)
def test_weights_of_an_image_encoder_that_are_none_are_refused(
    payload: bytes, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(payload)
    with pytest.raises(InputError, match=r"not a readable weights file|a dictionary of tensors"):
        make_image_encoder("resnet18", width=0.125, weights=str(path))


def test_code_in_weights_is_not_run(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Evil(tmp_path / "ran")}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="not a readable weights file"):
        make_image_encoder("resnet18", width=0.125, weights=str(tmp_path / "weights.pt"))
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_whole_numbers_are_refused(tmp_path: Path) -> None:
    encoder = make_image_encoder("resnet18", width=0.125)
    state = {name: each.long() for name, each in encoder.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"has numbers of type torch\.int64"):
        make_image_encoder("resnet18", width=0.125, weights=str(tmp_path / "weights.safetensors"))
