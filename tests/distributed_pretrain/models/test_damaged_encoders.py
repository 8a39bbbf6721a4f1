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


def put_in_nan(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["encoder.layer.0.output.dense.bias"][3] = torch.nan
    save_file(tensors, path, metadata={"format": "pt"})


def forget_a_layer(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))


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
        (put_in_nan, r"output\.dense\.bias has numbers that are not finite"),
        (forget_a_layer, r"'encoder\.layer\.1\.\S+', of more layers than config\.json says"),
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
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
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


def test_weights_of_a_deeper_model_are_not_taken_for_a_part_of_it(tmp_path: Path) -> None:
    """A resnet34 begins as a resnet18 does, shape by shape."""
    state = make_image_encoder("resnet18", width=0.125).state_dict()
    deeper = state | {
        name.replace("layer1.1", "layer1.2"): each.clone() for name, each in state.items()
    }
    path = tmp_path / "weights.safetensors"
    save_file(deeper, path)
    with pytest.raises(InputError, match=r"layer1\.2\.\S+ has no place in resnet18"):
        make_image_encoder("resnet18", width=0.125, weights=str(path))
    save_file(state | {"fc.weight": torch.zeros(3), "head.0.weight": torch.zeros(3)}, path)
    make_image_encoder("resnet18", width=0.125, weights=str(path))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = make_image_encoder("resnet18", width=0.125).state_dict()
    name = next(name for name in state if name.endswith("conv1.weight"))
    state[name].view(-1)[0] = torch.inf
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"conv1\.weight has numbers that are not finite"):
        make_image_encoder("resnet18", width=0.125, weights=str(tmp_path / "weights.safetensors"))
