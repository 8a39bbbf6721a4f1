"""The whole model as a Hugging Face folder: weights, config, image processor and tokenizer."""

from __future__ import annotations

from pathlib import Path

from distributed_pretrain.data.tokenization import SentenceTokenizer
from distributed_pretrain.handover.huggingface import (
    RadalignConfig,
    RadalignImageProcessor,
    RadalignModel,
)
from distributed_pretrain.handover.model import Model


def write(model: Model, folder: Path) -> str:
    """Write what `from_pretrained` reads, and return how it is loaded."""
    config = RadalignConfig.of(model)
    RadalignModel.holding(model.method.cpu(), config).save_pretrained(folder)
    RadalignImageProcessor.of(model).save_pretrained(folder)
    if isinstance(model.tokenizer, SentenceTokenizer):
        model.tokenizer.save(folder)
    return (
        "from distributed_pretrain import load\n\n"
        'model = load("FOLDER")  # embed_images, embed_reports, ground, retrieve, zero_shot\n\n'
        "# or by transformers, whose Auto classes know it once the package is imported\n"
        "from distributed_pretrain.handover import huggingface\n"
        "from transformers import AutoImageProcessor, AutoModel, AutoTokenizer\n\n"
        'model = AutoModel.from_pretrained("FOLDER")\n'
        'processor = AutoImageProcessor.from_pretrained("FOLDER")\n'
        'embedding = model.get_image_features(**processor("chest.png", return_tensors="pt"))'
    )
