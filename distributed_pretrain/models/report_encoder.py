"""Report encoders: a transformer over the whole report; embeddings of its tokens or sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModel, PreTrainedModel

from data_shards.errors import InputError
from distributed_pretrain.batch import place_in_part
from distributed_pretrain.foreign_code import refuse_code, refuse_code_in
from distributed_pretrain.models.pooling import (
    TokenMask,
    TokenNumbers,
    TokenWeights,
    pool_sentences,
)
from distributed_pretrain.models.trunks.bert import BertTrunk
from distributed_pretrain.models.trunks.modernbert import ModernBertTrunk
from distributed_pretrain.models.trunks.text import ATTENTION, TextTrunk
from distributed_pretrain.models.trunks.weights import surplus_layer
from distributed_pretrain.packing import WIDTHS, Packing

# By the `model_type` of a config; others are tried as a BERT.
_TRUNKS: dict[str, type[TextTrunk]] = {"bert": BertTrunk, "modernbert": ModernBertTrunk}
_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")


class ReportEncoder(nn.Module):
    """A Hugging Face model whose sentence embeddings are maxima over the sentences' tokens.

    `dim` is its hidden size, `max_tokens` the longest report it can read, `vocabulary_size` the
    number of its token embeddings.

    With a `packing` of the very reports it reads them in fewer rows, in which none sees another:
    embeddings and gradients are the same up to rounding, but for which numbers dropout draws.
    """

    def __init__(self, trunk: TextTrunk) -> None:
        super().__init__()
        self.trunk = trunk
        # The name that checkpoints have it by, whatever its kind.
        self.bert: PreTrainedModel = trunk.model
        self.dim: int = trunk.model.config.hidden_size
        self.max_tokens = trunk.max_tokens
        self.vocabulary_size: int = trunk.model.config.vocab_size
        self._widths: tuple[int, ...] = ()

    def compile(self, *_: Any, **options: Any) -> None:
        """Compile the transformer, with the options of `torch.compile`.

        For few widths, to which reports are then padded, or packed: each is a graph of its own. So
        is each number of padded reports, of which a run has two or three, but not of packed rows.
        """
        self.bert.compile(**options, dynamic=False)
        self._widths = (*(each for each in WIDTHS if each < self.max_tokens), self.max_tokens)

    def forward(
        self,
        token_ids: TokenNumbers,
        token_mask: TokenMask,
        sentence_index: TokenNumbers,
        sentence_mask: Bool[Tensor, "batch sentences"],
        *,
        alone: bool = False,
        packing: Packing | None = None,
    ) -> Float[Tensor, "batch sentences {self.dim}"]:
        """Sentence embeddings; zeros for padded sentences (`sentence_mask` False).

        `alone` reads each sentence as if it were the report, so that it is the same in every one.
        """
        read_alone = sentence_index if alone else None
        (tokens,) = self._encode(token_ids, token_mask, packing=packing, read_alone=read_alone)
        return pool_sentences(tokens, sentence_index, sentence_mask)

    def embed_tokens(
        self,
        token_ids: TokenNumbers,
        token_mask: TokenMask,
        *,
        last_layers: int = 1,
        packing: Packing | None = None,
    ) -> Float[Tensor, "batch tokens {self.dim}"]:
        """The sum of the hidden states of the `last_layers` layers (LIMITR takes four).

        Those of padding (mask False) mean nothing but are finite. Raises InputError when there are
        fewer layers.
        """
        self._check_layers("method.last_layers", last_layers, "sum from 1 to")
        states = self._encode(token_ids, token_mask, packing=packing, last=last_layers)
        return states[0] if last_layers == 1 else torch.stack(states).sum(dim=0)

    def embed_tokens_with_attention(
        self, token_ids: TokenNumbers, token_mask: TokenMask, *, packing: Packing | None = None
    ) -> tuple[Float[Tensor, "batch tokens {self.dim}"], TokenWeights]:
        """The last hidden states, and what CLS pays each token, CLS and SEP too, in the last layer.

        The latter is a mean over heads, sums to 1 over a report's tokens and has no gradient.
        """
        before_last, last = self._encode(token_ids, token_mask, packing=packing, last=2)
        return last, self.trunk.first_token_attention(before_last, token_mask)

    def keep_layers(self, layers: int) -> None:
        """Drop all but the first `layers` layers (MGCA keeps 6); InputError if there are fewer."""
        self._check_layers("method.report_layers", layers, "keep from 1 to")
        self.trunk.keep_layers(layers)

    def freeze(self, layers: int) -> None:
        """Exclude the embeddings and the first `layers` layers from training.

        Their dropout stays active in training mode, as in the authors' code. Raises InputError
        when there are fewer layers.
        """
        self._check_layers("frozen_layers", layers, "freeze at most", least=0)
        self.bert.embeddings.requires_grad_(False)
        self.trunk.layers[:layers].requires_grad_(False)

    def _check_layers(self, setting: str, layers: int, remedy: str, *, least: int = 1) -> None:
        most = len(self.trunk.layers)
        if not least <= layers <= most:
            raise InputError(
                f"{setting}={layers}: the report encoder has {most} layers: {remedy} {most}"
            )

    def _encode(
        self,
        token_ids: Tensor,
        token_mask: Tensor,
        *,
        packing: Packing | None,
        last: int = 1,
        read_alone: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """The last hidden states, of the `last` layers (the embeddings are before the first).

        Tokens of other numbers in `read_alone` do not see each other, and each number's begin at
        the position behind CLS.
        """
        batch, tokens = token_ids.shape
        assert tokens <= self.max_tokens, "reports are cut when they are tokenised"
        if packing is not None:
            states = self._states(*self._packed(token_ids, packing, read_alone), last=last)
            return tuple(packing.unpack(each, batch=batch, tokens=tokens) for each in states)
        missing = next((each for each in self._widths if each >= tokens), tokens) - tokens
        if missing:
            token_ids, token_mask = pad(token_ids, (0, missing)), pad(token_mask, (0, missing))
            read_alone = None if read_alone is None else pad(read_alone, (0, missing), value=-1)
        # A row without any token (it fills up a batch) would be a softmax over nothing: NaN.
        attended = token_mask | ~token_mask.any(dim=1, keepdim=True)
        inputs = {"attention_mask": self.trunk.attention_mask(attended)}
        if read_alone is not None:
            together = read_alone[:, :, None] == read_alone[:, None]
            itself = torch.eye(token_ids.shape[1], dtype=torch.bool, device=token_ids.device)
            inputs = {
                "attention_mask": self.trunk.mask_of_pairs(together & token_mask[:, None] | itself),
                "position_ids": self.trunk.first_position + _places_alone(read_alone),
            }
        states = self._states(token_ids, inputs, last=last)
        return tuple(each[:, :tokens] for each in states) if missing else states

    def _packed(
        self, token_ids: Tensor, packing: Packing, read_alone: Tensor | None
    ) -> tuple[Tensor, dict[str, Any]]:
        """The packed tokens, and what keeps their reports apart."""
        batch, tokens = token_ids.shape
        report = torch.arange(batch, device=token_ids.device)[:, None].expand(-1, tokens)
        place = torch.arange(tokens, device=token_ids.device).expand(batch, -1)
        if read_alone is not None:
            report = report * (tokens + 1) + read_alone + 1
            place = _places_alone(read_alone)
        # Padding is a report of its own in each row, so that no softmax is over nothing.
        text = packing.pack(report, filler=-1)
        inputs = {
            "attention_mask": self.trunk.mask_of_pairs(text[:, :, None] == text[:, None]),
            "position_ids": self.trunk.first_position + packing.pack(place, filler=0),
        }
        packed = packing.pack(token_ids, filler=0)
        if self._widths:
            # How many rows there are differs from batch to batch: one graph for all of them.
            for each in tree_leaves((packed, inputs)):
                torch._dynamo.maybe_mark_dynamic(each, 0)
        return packed, inputs

    def _states(
        self, token_ids: Tensor, inputs: dict[str, Any], *, last: int
    ) -> tuple[Tensor, ...]:
        encoded = self.bert(token_ids, output_hidden_states=last > 1, **inputs)
        return (encoded.last_hidden_state,) if last == 1 else tuple(encoded.hidden_states[-last:])


def _places_alone(read_alone: Tensor) -> Tensor:
    # Padding may be as long as a report, which ends one position earlier.
    return (place_in_part(read_alone) + 1).clamp(max=read_alone.shape[1] - 1)


def pretrained_report_encoder(model: str) -> ReportEncoder:
    """The encoder of a model on the Hugging Face hub or in a local folder.

    Code that a model brings is never run. Raises InputError when the folder holds no weights or
    not all of them, the hub cannot be reached, or the model is of no kind that is known here.
    """
    refuse_code(model)
    folder = Path(model)
    if folder.is_dir() and not any(file for kind in _WEIGHT_FILES for file in folder.glob(kind)):
        raise InputError(
            f"{model}: a folder without model weights (model.safetensors or pytorch_model.bin): "
            "give a folder written by save_pretrained or `hf download NAME --local-dir FOLDER`"
        )
    try:
        loaded, found = AutoModel.from_pretrained(
            model,
            attn_implementation=ATTENTION,
            dtype=torch.float32,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # damaged files make loaders raise anything
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{model}: no text encoder could be loaded ({reason}): where there is a network, "
            f"run `hf download {model} --local-dir FOLDER`, and give FOLDER instead of the name"
        ) from error
    # The pooler is not used.
    if missing := sorted(each for each in found["missing_keys"] if not each.startswith("pooler.")):
        raise InputError(
            f"{model}: weights without {missing[0]!r} ({len(missing)} are missing): fetch it again"
        )
    own, prefix = loaded.state_dict(), f"{loaded.base_model_prefix}."
    if surplus := surplus_layer([n.removeprefix(prefix) for n in found["unexpected_keys"]], own):
        raise InputError(
            f"{model}: weights with {surplus!r}, of more layers than config.json says: fetch both "
            "again"
        )
    if bad := [n for n, each in own.items() if not torch.isfinite(each).all()]:
        raise InputError(f"{model}: {bad[0]} has numbers that are not finite: fetch it again")
    return _encoder_of(loaded, model)


def described_report_encoder(config: dict[str, Any]) -> ReportEncoder:
    """An untrained encoder of a Hugging Face model's config, as `config.to_dict()` has it.

    Raises InputError for one that is not known here.
    """
    refuse_code_in(config, "report_encoder.config")
    try:
        described = AutoConfig.for_model(**config)
        model = AutoModel.from_config(
            described, attn_implementation=ATTENTION, trust_remote_code=False
        )
    except Exception as error:  # whatever a foreign config makes of itself
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"report_encoder.config: no text encoder is so ({reason})") from error
    return _encoder_of(model.float(), "report_encoder.config")


def _encoder_of(loaded: PreTrainedModel, model: str) -> ReportEncoder:
    kind = _TRUNKS.get(loaded.config.model_type, BertTrunk)
    if kind is BertTrunk and not BertTrunk.fits(loaded):
        raise InputError(
            f"{model}: a {type(loaded).__name__} is not laid out like a BERT: use one, "
            "a RoBERTa or a ModernBERT"
        )
    return ReportEncoder(kind(loaded))


def new_report_encoder(
    vocabulary_size: int, *, architecture: str = "bert", **size: Any
) -> ReportEncoder:
    """An untrained encoder of a kind ("bert", "modernbert"), and of a `size` as `TextTrunk.new`."""
    return ReportEncoder(_TRUNKS[architecture].new(vocabulary_size, **size))
