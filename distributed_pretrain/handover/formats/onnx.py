"""The image encoder as an ONNX graph: pixels in, feature map and embedding out."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from data_shards.errors import InputError
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.handover.images import image_vectors, without_reports
from distributed_pretrain.handover.model import Model
from distributed_pretrain.methods.objective import Method

NAME = "image_encoder.onnx"
INPUT, OUTPUTS = "pixels", ("feature_map", "embedding")


class _Images(nn.Module):
    """What the graph computes of any number of images."""

    def __init__(self, method: Method, data: DataConfig) -> None:
        super().__init__()
        self.method, self.data = method, data

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        vectors = image_vectors(self.method, without_reports(pixels, self.data, known=1))
        return self.method.feature_map(pixels), vectors


def write(model: Model, folder: Path) -> str:
    """Write `image_encoder.onnx`, and return how it is used.

    Raises InputError where a library is missing, or the method cannot be one graph.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError("onnx: not installed: `pip install 'radalign[onnx]'`") from error
    if model.data.views == "frontal_lateral":
        raise InputError(
            "onnx: a method that reads a lateral view where there is one is no single graph: "
            "export it --to transformers, or torchvision"
        )
    size = model.data.image_size_px
    for name in ("torch.onnx", "onnxscript"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Images(model.method, model.data).cpu().eval(),
            (torch.rand(2, 1, size, size),),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim("images")},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(folder / NAME)
    return (
        "import onnxruntime\n\n"
        f'session = onnxruntime.InferenceSession("{NAME}")\n'
        f'feature_map, embedding = session.run(None, {{"{INPUT}": pixels}})  # (images, 1, '
        f"{size}, {size}), float32"
    )
