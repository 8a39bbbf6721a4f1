"""Every profile's method with encoders small enough for a test, and a batch for any of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from data_shards.profiles import load_profile
from distributed_pretrain.batch import Batch, Lateral, ReportTokens, SecondView
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.pretrain.settings import PretrainConfig
from tests.paths import CONFIGS

PROFILES_FOLDER = CONFIGS / "pretrain"
PROFILES = {path.stem: path for path in sorted(PROFILES_FOLDER.glob("*.yaml"))}
VOCABULARY_SIZE = 40
IMAGE_SIZE_PX = 64
TOKENS = 14
MOST_SENTENCES = 3

# Six layers: LIMITR sums four of them, MGCA keeps six.
_REPORT_ENCODER = {
    "name": "new",
    "hidden_size": 32,
    "layers": 6,
    "heads": 2,
    "intermediate_size": 64,
    "dropout": 0.0,
}
_FILLER: dict[torch.dtype, float] = {torch.bool: False, torch.int64: -1}
_RESNET = {"backbone": "resnet18", "weights": None, "width": 0.125, "last_stride": 1}
# The smallest that torchvision has.
_TRANSFORMER = {"backbone": "vit_b_32", "weights": None}


def tiny_profile(name: str, *, norm: Norm = "sync", across_ranks: bool = False) -> PretrainConfig:
    """The profile with small encoders; everything else is as in the file.

    `norm` is that of the encoder and of the heads. With `across_ranks` terms that a method may also
    compare within a rank are compared over all of them.
    """
    config = load_profile(PretrainConfig, PROFILES[name])
    method = config.method.model_dump()
    is_transformer = config.method.image_encoder.backbone.startswith("vit")
    method["image_encoder"] |= _TRANSFORMER if is_transformer else _RESNET | {"norm": norm}
    if method["report_encoder"] is not None:
        method["report_encoder"] = _REPORT_ENCODER
    changes: dict[str, Any] = {"projection_norm": norm}
    if across_ranks:
        changes |= {"external_negatives": "global"}
    method |= {key: value for key, value in changes.items() if key in method}
    values = config.model_dump() | {"method": method}
    return PretrainConfig.model_validate(values)


def tiny_method(config: PretrainConfig) -> Method:
    torch.manual_seed(0)
    return config.method.build(Sizes(VOCABULARY_SIZE, classes=len(config.data.labels)))


def random_batch(config: PretrainConfig, rows: int, *, seed: int = 1) -> Batch:
    """All that the profile's method reads: some studies lack a lateral, some labels are unknown."""
    generator = torch.Generator().manual_seed(seed)

    def images() -> Tensor:
        return torch.randn(rows, 1, IMAGE_SIZE_PX, IMAGE_SIZE_PX, generator=generator)

    data = config.data
    lateral, twice = data.views == "frontal_lateral", data.views == "two_augmentations"
    has_lateral = torch.arange(rows) % 3 != 1
    labels = torch.tensor([1.0, 0.0, -1.0, torch.nan])
    drawn = torch.randint(0, 4, (rows, len(data.labels)), generator=generator)
    return Batch(
        keys=tuple(f"study-{i}" for i in range(rows)),
        images=images(),
        report=_reports(rows, generator),
        sample_mask=torch.ones(rows, dtype=torch.bool),
        lateral=Lateral(images() * has_lateral[:, None, None, None], has_lateral)
        if lateral
        else None,
        second_view=SecondView(images(), _view_to_image(rows, generator)) if twice else None,
        labels=labels[drawn] if data.labels else None,
    )


def _reports(rows: int, generator: torch.Generator) -> ReportTokens:
    """One to three sentences of four tokens, of which the first two are one word."""
    counts = 1 + torch.arange(rows)[:, None] * 2 % 3
    position = torch.arange(TOKENS).expand(rows, -1)
    token_mask = position < 4 * counts + 2
    in_sentence = (position > 0) & (position <= 4 * counts)
    place, sentence = (position - 1) % 4, (position - 1) // 4
    word = 3 * sentence + (place - 1).clamp(min=0)
    token_ids = torch.randint(5, VOCABULARY_SIZE, (rows, TOKENS), generator=generator)
    return ReportTokens(
        token_ids=token_ids * token_mask,
        token_mask=token_mask,
        sentence_index=torch.where(in_sentence, sentence, -1),
        sentence_mask=torch.arange(MOST_SENTENCES) < counts,
        word_index=torch.where(in_sentence, word, -1),
    )


def _view_to_image(rows: int, generator: torch.Generator) -> Tensor:
    """Two crops of 0.6 of the image's side that always overlap, the second flipped."""
    corners = 0.4 * torch.rand(rows, 2, 2, generator=generator)
    maps = torch.zeros(rows, 2, 2, 3)
    maps[:, :, 0, 0] = maps[:, :, 1, 1] = 0.6
    maps[..., 2] = corners
    maps[:, 1, 0, 0] = -0.6
    maps[:, 1, 0, 2] += 0.6
    return maps


def as_double(batch: Batch) -> Batch:
    """The same numbers in float64."""
    return batch.map_tensors(lambda each: each.double() if each.is_floating_point() else each)


def with_padded_samples(batch: Batch, rows: int) -> Batch:
    """`batch` after `rows` samples that are not there: NaN pixels, reports without a token."""

    def extended(values: Tensor) -> Tensor:
        missing = values.new_full((rows, *values.shape[1:]), _FILLER.get(values.dtype, torch.nan))
        return torch.cat([missing, values])

    padded = replace(batch, keys=()).map_tensors(extended)
    report = replace(padded.report, token_ids=padded.report.token_ids.clamp(min=0))
    return replace(padded, keys=("",) * rows + batch.keys, report=report)
