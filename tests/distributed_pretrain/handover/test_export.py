"""What others' loaders make of an export is what the run's own encoder makes of the same pixels."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import jaxtyping
import numpy as np
import onnxruntime
import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from data_shards.errors import InputError
from distributed_pretrain import load
from distributed_pretrain.__main__ import main
from distributed_pretrain.batch import Batch
from distributed_pretrain.handover.export import _push
from distributed_pretrain.handover.formats import onnx, transformers
from distributed_pretrain.handover.formats import timm as to_timm
from distributed_pretrain.handover.formats import torchvision as to_torchvision
from distributed_pretrain.handover.model import Model
from distributed_pretrain.methods.encoders import PretrainedReportEncoderConfig
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.models.image_encoder import make_image_encoder
from distributed_pretrain.models.report_encoder import new_report_encoder

pytestmark = pytest.mark.xdist_group("short_run")  # a fixture of one process
IMAGE = np.random.default_rng(0).integers(0, 255, (60, 50), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(short_run: Path) -> Model:
    return load(short_run, checkpoint="last")


def with_encoder(model: Model, backbone: str, **options: object) -> Model:
    """A model whose image encoder is a whole `backbone`, with statistics of its own."""
    torch.manual_seed(1)
    encoder = make_image_encoder(backbone, **options)  # type: ignore[arg-type]
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]

    class Images(Method):
        def __init__(self) -> None:
            super().__init__()
            self.image_encoder = encoder

        def forward(self, batch: Batch) -> None:
            raise NotImplementedError

    settings = model.config.method.image_encoder.model_copy(
        update={"backbone": backbone, "width": 1.0, **options}
    )
    method = model.config.method.model_copy(update={"image_encoder": settings})
    config = model.config.model_copy(update={"method": method})
    return replace(model, config=config, method=Images().eval())


def pixels(size: int = 64) -> Tensor:
    return torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(2)) * 4 - 2


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", pytest.param("vit_b_32", marks=pytest.mark.slow)]
)
def test_torchvision_takes_it_unchanged(model: Model, tmp_path: Path, name: str) -> None:
    whole = with_encoder(model, name)
    to_torchvision.write(whole, tmp_path)
    theirs = torchvision.models.get_model(name, weights=None).eval()
    theirs.load_state_dict(load_file(tmp_path / f"{name}.safetensors"))
    size = 224 if name.startswith("vit") else 64
    images = pixels(size)
    seen: list[Tensor] = []
    layer = {"resnet18": "layer4", "densenet121": "features", "vit_b_32": "encoder"}[name]
    theirs.get_submodule(layer).register_forward_hook(lambda _m, _i, made: seen.append(made))
    logits = theirs(images.expand(-1, 3, -1, -1))
    ours = whole.image_encoder(images)
    made = seen[0].relu() if name == "densenet121" else seen[0]
    if name.startswith("vit"):
        made = made[:, 1:].mT.unflatten(2, ours.shape[2:])
    torch.testing.assert_close(made, ours)
    assert not logits.any(), "a classifier that nobody trained"


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "timm/convnext_atto", "timm/vit_tiny_patch16_224"])
def test_timm_takes_it_by_its_path(model: Model, tmp_path: Path, name: str) -> None:
    whole = with_encoder(model, name)
    to_timm.write(whole, tmp_path)
    architecture = name.removeprefix("timm/")
    path = tmp_path / f"{architecture}.safetensors"
    theirs = timm.create_model(architecture, checkpoint_path=str(path)).eval()
    images = pixels(224)
    made, ours = theirs.forward_features(images.expand(-1, 3, -1, -1)), whole.image_encoder(images)
    if made.ndim == 3:
        made = made[:, 1:].mT.unflatten(2, ours.shape[2:])
    torch.testing.assert_close(made, ours)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"width": 0.25}, "has shape"),
        ({"last_stride": 1}, "last_stride is 1"),
        ({"last_stage": 3}, "layer4"),
        ({"norm": "group"}, "is not in it"),
    ],
    ids=str,
)
def test_what_torchvision_has_not_is_refused(
    model: Model, tmp_path: Path, options: dict[str, object], said: str
) -> None:
    changed = with_encoder(model, "resnet18", **options)
    with pytest.raises(InputError, match=said) as caught:
        to_torchvision.write(changed, tmp_path)
    assert "--to transformers" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("backbone", "to", "said"),
    [
        ("patches", "torchvision", "--to transformers or onnx"),
        ("patches", "timm", "--to transformers or onnx"),
        ("timm/convnext_atto", "torchvision", "--to timm, transformers or onnx"),
        ("densenet121", "timm", "--to torchvision"),
    ],
)
def test_a_refused_encoder_is_sent_to_a_format_that_takes_it(
    model: Model, tmp_path: Path, backbone: str, to: str, said: str
) -> None:
    write = {"torchvision": to_torchvision.write, "timm": to_timm.write}[to]
    with pytest.raises(InputError, match=said):
        write(with_encoder(model, backbone), tmp_path)


def test_a_refused_export_leaves_no_folder(short_run: Path, tmp_path: Path) -> None:
    """But one that was there before."""
    words = ("export", str(short_run), "--to", "torchvision", "checkpoint=last")
    assert main([*words, f"output={tmp_path / 'new'}"]) == 2
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    assert main([*words, f"output={tmp_path / 'old'}"]) == 2
    assert (tmp_path / "old").is_dir()


def assert_same_model(ours: Model, theirs: Model) -> None:
    report = "FINDINGS: There is a small effusion. The heart is normal."
    assert ours.embed_images(IMAGE).equal(theirs.embed_images(IMAGE))
    assert ours.embed_reports(report).equal(theirs.embed_reports(report))
    assert ours.ground(IMAGE, "effusion").equal(theirs.ground(IMAGE, "effusion"))
    assert ours.stored == theirs.stored


def test_transformers_has_the_whole_model(model: Model, short_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    words = ("export", str(short_run), "--to", "transformers", "checkpoint=last")
    assert main([*words, f"output={folder}"]) == 0
    assert_same_model(model, load(folder))
    theirs = AutoModel.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        inputs = processor(IMAGE, return_tensors="pt")
        torch.testing.assert_close(theirs.get_image_features(**inputs), model.embed_images(IMAGE))
        torch.testing.assert_close(theirs(**inputs), model.feature_maps(IMAGE))
    assert AutoTokenizer.from_pretrained(folder)("effusion")["input_ids"]
    # It is handed on by transformers' own means too.
    theirs.save_pretrained(tmp_path / "again")
    again = AutoModel.from_pretrained(tmp_path / "again").state_dict()
    assert all(again[name].equal(tensor) for name, tensor in theirs.state_dict().items())
    written = "".join(path.read_text() for path in folder.glob("*.json"))
    assert str(short_run) not in written
    assert str(model.data.shards) not in written
    card = (folder / "README.md").read_text()
    assert "tags: [chest x-ray" in card
    assert "Data: 60 training studies of" in card
    assert "Nothing yet" in card


def test_a_text_encoder_of_the_hub_goes_along(model: Model, tmp_path: Path) -> None:
    """Without the hub: its config is in the export, and its weights are those of the model."""
    config, tokens = model.config, model.tokenizer.vocabulary_size
    source = tmp_path / "bert"
    bert = new_report_encoder(
        tokens, hidden_size=32, layers=2, heads=2, intermediate_size=48, max_tokens=64
    )
    bert.bert.save_pretrained(source)
    encoder = PretrainedReportEncoderConfig(model=str(source), frozen_layers=1)
    method = config.method.model_copy(update={"report_encoder": encoder})
    built = method.build(Sizes(tokens)).eval()
    config = config.model_copy(update={"method": method})
    ours = replace(model, config=config, method=built)
    folder = tmp_path / "out"
    transformers.write(ours, folder)
    source.rename(tmp_path / "gone")
    assert_same_model(ours, load(folder))


def test_onnx_runs_elsewhere(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The checks of shapes in tests would be part of the graph.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    onnx.write(model, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / onnx.NAME, providers=["CPUExecutionProvider"])
    images = [IMAGE, IMAGE.T, IMAGE[::-1].copy()]
    made = session.run(None, {onnx.INPUT: model.pixels(images).numpy()})
    close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)
    close(torch.from_numpy(made[0]), model.feature_maps(images))
    close(torch.from_numpy(made[1]), model.embed_images(images))


def test_what_is_no_single_graph_is_refused(model: Model, tmp_path: Path) -> None:
    data = model.data.model_copy(update={"views": "frontal_lateral"})
    config = model.config.model_copy(update={"data": data})
    with pytest.raises(InputError, match="lateral view"):
        onnx.write(replace(model, config=config), tmp_path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text('{"auto_map": {}}'), "code of its own"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "radalign"}'),
            "config.json",
        ),
    ],
    ids=["weights", "code", "tokenizer", "config"],
)
def test_a_damaged_export_is_one_line(
    model: Model, tmp_path: Path, damage: object, said: str
) -> None:
    transformers.write(model, tmp_path)
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(InputError, match=said) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_where_it_goes_is_tried_before_anything_is_read(
    short_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distributed_pretrain.handover.export.load", None)
    (tmp_path / "file").touch()
    words = ("export", str(short_run), "--to", "onnx", "checkpoint=last")
    assert main([*words, f"output={tmp_path / 'file' / 'out'}"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_hub_without_a_network_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class ConnectError(Exception):
        """As the hub's client has it: neither of the system nor of the hub."""

    def refuse(*_: object, **__: object) -> None:
        raise ConnectError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)
    with pytest.raises(InputError, match="push_to_hub=me/chest: no route: check the name"):
        _push(tmp_path, "me/chest")


def test_a_hub_that_refuses_is_one_line(
    short_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("export", str(short_run), "--to", "transformers", "checkpoint=last")
    status = main([*words, f"output={tmp_path}", "push_to_hub=me/chest"])
    assert status == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "hf upload me/chest" in said
