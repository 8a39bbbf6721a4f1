"""Reports as token sequences that remember their sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from data_shards.errors import InputError
from distributed_pretrain.batch import ReportTokens

# Sequence lengths are padded to a multiple of this: tensor cores like it, and few shapes occur.
_TOKEN_MULTIPLE = 8
_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_NORMALIZER = normalizers.BertNormalizer(lowercase=True)
_PRE_TOKENIZER = pre_tokenizers.BertPreTokenizer()


class SentenceTokenizer:
    """Encodes reports as `[CLS] s1 s2 ... [SEP]` with at most `max_tokens` tokens.

    Thread-safe: the underlying Rust tokenizer is never reconfigured after construction.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._backend: Tokenizer = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._continues_word = _continuing_pieces(self._backend)
        self._max_tokens = max_tokens
        self._cls_id = _required(tokenizer.cls_token_id, "CLS")
        self._sep_id = _required(tokenizer.sep_token_id, "SEP")
        self.pad_token_id = _required(tokenizer.pad_token_id, "PAD")

    @classmethod
    def load(cls, name_or_folder: str | Path, *, max_tokens: int = 512) -> Self:
        """The tokenizer of a hub model (cached or downloaded) or of a local folder.

        Raises InputError when neither is there, it has no fast (Rust) form or is no WordPiece.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(name_or_folder), use_fast=True)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{name_or_folder}: no tokenizer found there: give a folder with tokenizer.json, "
                f"or fetch it where there is a network with `hf download {name_or_folder} "
                "--local-dir FOLDER` and pass FOLDER"
            ) from error
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(f"{name_or_folder}: its tokenizer has no fast form: use a BERT model")
        return cls(tokenizer, max_tokens=max_tokens)

    @property
    def vocabulary_size(self) -> int:
        """Tokens known, special ones included."""
        return self._backend.get_vocab_size()

    def save(self, folder: Path) -> None:
        """Write the files that `load` reads back."""
        self._tokenizer.save_pretrained(str(folder))

    def encode(self, reports: Sequence[Sequence[str]]) -> ReportTokens:
        """The sentences of each report as tokens; padded to the longest report.

        From the first sentence that does not fit the rest of a report are dropped; a first
        sentence that does not fit by itself is cut, for a report without sentences has no
        embedding. Sentences without a single token are left out. Raises ValueError for a report
        without any token.
        """
        flat = [sentence for sentences in reports for sentence in sentences]
        encoded = iter(self._backend.encode_batch_fast(flat, add_special_tokens=False))
        kept = [self._fitting([next(encoded).ids for _ in report]) for report in reports]
        if not all(kept):
            empty = reports[kept.index([])]
            raise ValueError(f"a report without tokens: {list(empty)!r}")

        lengths = [2 + sum(map(len, sentences)) for sentences in kept]
        width = -(-max(lengths) // _TOKEN_MULTIPLE) * _TOKEN_MULTIPLE
        width = min(width, self._max_tokens)
        token_ids = np.full((len(kept), width), self.pad_token_id, dtype=np.int64)
        sentence_index = np.full((len(kept), width), -1, dtype=np.int64)
        for row, (sentences, length) in enumerate(zip(kept, lengths, strict=True)):
            inner = slice(1, length - 1)
            token_ids[row, 0], token_ids[row, length - 1] = self._cls_id, self._sep_id
            token_ids[row, inner] = np.concatenate(sentences)
            numbers = np.arange(len(sentences))
            sentence_index[row, inner] = np.repeat(numbers, [len(ids) for ids in sentences])
        in_sentence = sentence_index >= 0
        begins_word = in_sentence & ~self._continues_word[token_ids]
        return ReportTokens(
            token_ids=torch.from_numpy(token_ids),
            token_mask=torch.from_numpy(_prefix_mask(lengths, width)),
            sentence_index=torch.from_numpy(sentence_index),
            sentence_mask=torch.from_numpy(_prefix_mask([len(s) for s in kept])),
            word_index=torch.from_numpy(
                np.where(in_sentence, np.cumsum(begins_word, axis=1) - 1, -1)
            ),
        )

    def _fitting(self, sentences: list[list[int]]) -> list[list[int]]:
        sentences = [ids for ids in sentences if ids]
        room = self._max_tokens - 2
        ends = np.cumsum([len(ids) for ids in sentences])
        fitting = int(np.searchsorted(ends, room, side="right"))
        return sentences[:fitting] or [ids[:room] for ids in sentences[:1]]


def train_wordpiece(texts: Iterable[str], folder: Path, *, vocabulary_size: int) -> None:
    """Train a lower-casing BERT WordPiece tokenizer and save it where `load` finds it.

    The same texts give the same files.
    """
    texts = list(texts)
    draft = _wordpiece(vocabulary=None)
    # The trainer numbers the pieces "##c" in the order of a randomly seeded hash map and breaks
    # ties by number. Naming them beforehand, in order, makes training deterministic.
    words = (
        word
        for text in texts
        for word, _ in _PRE_TOKENIZER.pre_tokenize_str(_NORMALIZER.normalize_str(text))
    )
    inner_characters = sorted({character for word in words for character in word[1:]})
    pieces = [f"##{character}" for character in inner_characters]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size, special_tokens=[*_SPECIAL_TOKENS, *pieces], show_progress=False
    )
    draft.train_from_iterator(texts, trainer)
    # A tokenizer of its own, for in the draft those pieces count as special tokens.
    tokenizer = _wordpiece(vocabulary=draft.get_vocab())
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **dict(zip(names, _SPECIAL_TOKENS, strict=True))
    ).save_pretrained(str(folder))


def _wordpiece(vocabulary: dict[str, int] | None) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = _NORMALIZER
    tokenizer.pre_tokenizer = _PRE_TOKENIZER
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _continuing_pieces(backend: Tokenizer) -> NDArray[np.bool_]:
    """True for the tokens ("##ing") that go on with the word of the token before them.

    The tokenizer's own account of words needs the slower of its two encodings.
    """
    if not isinstance(backend.model, models.WordPiece):
        raise InputError("the tokenizer does not split words as BERT does: use that of a BERT")
    prefix = backend.model.continuing_subword_prefix
    pieces = backend.get_vocab()
    continues = np.zeros(1 + max(pieces.values()), dtype=np.bool_)
    continues[[number for piece, number in pieces.items() if piece.startswith(prefix)]] = True
    return continues


def _prefix_mask(lengths: Sequence[int], width: int | None = None) -> NDArray[np.bool_]:
    columns = np.arange(width if width is not None else max(lengths))
    mask: NDArray[np.bool_] = columns < np.asarray(lengths)[:, None]
    return mask


def _required(token_id: int | None, name: str) -> int:
    if token_id is None:
        raise InputError(f"the tokenizer has no {name} token: use the tokenizer of a BERT model")
    return token_id
