"""The encoders that a method starts from, as settings that build them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from data_shards.errors import InputError
from data_shards.profiles import Config
from distributed_pretrain.models.norms.kinds import Norm

if TYPE_CHECKING:
    from distributed_pretrain.models.image_encoder import ImageEncoder
    from distributed_pretrain.models.report_encoder import ReportEncoder


# Imports stand inside `build`: a profile is read without torch.
class ImageEncoderConfig(Config):
    """A torchvision backbone, or `timm/` and timm's name of one (see `make_image_encoder`).

    `weights` is torchvision's name or timm's tag, a .pt or .safetensors file (also the model of a
    run's checkpoint: a warm start), or null for a random start; `width`, `last_stride` and
    `last_stage` are for torchvision's ResNets. `norm` decides what a run on several ranks
    computes (see `Norm`).
    """

    backbone: str = "resnet50"
    weights: str | None = "IMAGENET1K_V1"
    width: PositiveFloat = 1.0
    last_stride: Literal[1, 2] = 2
    last_stage: Literal[3, 4] = 4
    norm: Norm = "sync"

    def build(self) -> ImageEncoder:
        """The image encoder; InputError when there is no such one."""
        from distributed_pretrain.models.image_encoder import make_image_encoder

        return make_image_encoder(**self.model_dump())


class PretrainedReportEncoderConfig(Config):
    """A model of the Hugging Face hub (a name) or a local folder, with its own tokenizer.

    A BERT, a RoBERTa or what else is laid out like one, or a ModernBERT.
    The embeddings and the first `frozen_layers` layers are not trained; null trains everything.
    """

    name: Literal["pretrained"] = "pretrained"
    model: str = "emilyalsentzer/Bio_ClinicalBERT"
    frozen_layers: NonNegativeInt | None = 6

    def make_tokenizer(self, texts: Iterable[str], folder: Path, *, vocabulary_size: int) -> None:
        """Put the tokenizer that belongs to the encoder into `folder`; no text is read."""
        from distributed_pretrain.data.tokenization import SentenceTokenizer

        SentenceTokenizer.load(self.model).save(folder)

    def build(self, vocabulary_size: int) -> ReportEncoder:
        """The encoder, for a tokenizer of `vocabulary_size` tokens.

        Raises InputError when it cannot be loaded or knows fewer tokens.
        """
        from distributed_pretrain.models.report_encoder import pretrained_report_encoder

        encoder = pretrained_report_encoder(self.model)
        if vocabulary_size > encoder.vocabulary_size:
            raise InputError(
                f"report_encoder.model={self.model}: knows {encoder.vocabulary_size} tokens, "
                f"the tokenizer {vocabulary_size}: use the tokenizer that belongs to the model"
            )
        if self.frozen_layers is not None:
            encoder.freeze(self.frozen_layers)
        return encoder


class NewReportEncoderConfig(Config):
    """An untrained BERT or ModernBERT, for a tokenizer trained on the reports themselves.

    Freezing the first layers of one only makes sense to time a step of that shape.
    """

    name: Literal["new"] = "new"
    architecture: Literal["bert", "modernbert"] = "bert"
    hidden_size: PositiveInt = 128
    layers: PositiveInt = 2
    heads: PositiveInt = 4
    intermediate_size: PositiveInt = 512
    max_tokens: PositiveInt = 512
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    frozen_layers: NonNegativeInt | None = None

    def make_tokenizer(self, texts: Iterable[str], folder: Path, *, vocabulary_size: int) -> None:
        """Train one on `texts`, in `folder`: WordPiece for a BERT, else byte-level BPE."""
        from distributed_pretrain.data import tokenizer_training

        if self.architecture == "bert":
            tokenizer_training.train_wordpiece(texts, folder, vocabulary_size=vocabulary_size)
        else:
            tokenizer_training.train_byte_level_bpe(texts, folder, vocabulary_size=vocabulary_size)

    def build(self, vocabulary_size: int) -> ReportEncoder:
        """The encoder, for a tokenizer of `vocabulary_size` tokens; InputError for odd sizes."""
        from distributed_pretrain.models.report_encoder import new_report_encoder

        # Rotary positions turn pairs of a head's dimensions.
        parts, odd = self.heads, ""
        if self.architecture == "modernbert":
            parts, odd = 2 * self.heads, " into parts of even size"
        if self.hidden_size % parts:
            raise InputError(
                f"report_encoder.heads={self.heads} does not divide hidden_size="
                f"{self.hidden_size}{odd}: choose a number of heads that does"
            )
        shape = self.model_dump(exclude={"name", "frozen_layers"})
        encoder = new_report_encoder(vocabulary_size, **shape)
        if self.frozen_layers is not None:
            encoder.freeze(self.frozen_layers)
        return encoder


class DescribedReportEncoderConfig(Config):
    """A Hugging Face model by its whole `config`, untrained: an export's, which has its weights."""

    name: Literal["described"] = "described"
    config: dict[str, Any]

    def make_tokenizer(self, texts: Iterable[str], folder: Path, *, vocabulary_size: int) -> None:
        """There is none to be made: an export brings its own."""
        del texts, folder, vocabulary_size
        raise InputError(
            "report_encoder.name=described: is that of an export, which is not trained: use "
            "pretrained and a folder, or new"
        )

    def build(self, vocabulary_size: int) -> ReportEncoder:
        """The encoder; InputError for a config that is not known, or of fewer tokens."""
        from distributed_pretrain.models.report_encoder import described_report_encoder

        encoder = described_report_encoder(self.config)
        if vocabulary_size > encoder.vocabulary_size:
            raise InputError(
                f"report_encoder.config: knows {encoder.vocabulary_size} tokens, the tokenizer "
                f"{vocabulary_size}: use the tokenizer that belongs to the model"
            )
        return encoder


ReportEncoderConfig: TypeAlias = Annotated[
    PretrainedReportEncoderConfig | NewReportEncoderConfig | DescribedReportEncoderConfig,
    Field(discriminator="name"),
]
