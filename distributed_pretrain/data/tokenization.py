"""Reports as token sequences that remember their sentences and words."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from data_shards.errors import InputError
from distributed_pretrain.batch import ReportTokens
from distributed_pretrain.foreign_code import refuse_code

# Sequence lengths are padded to a multiple of this: tensor cores like it, and few shapes occur.
_TOKEN_MULTIPLE = 8
# Sentences of which the tokens are kept, some tens of MB. Reports repeat each other's, and the most
# frequent ones are among the first that are met.
_SENTENCES_KEPT = 1 << 16
# What a byte-level tokenizer writes for a space.
_SPACE = "Ġ"
_KNOWN = "use that of a BERT, a RoBERTa or a ModernBERT"


# The ids of a sentence's tokens, and which of them begin a word.
_Pieces: TypeAlias = tuple[NDArray[np.int64], NDArray[np.bool_]]


class NoReports:
    """Every report without a token: for methods that learn from images only."""

    vocabulary_size = 0

    def encode(self, reports: Sequence[Sequence[str]]) -> ReportTokens:
        """As many empty reports."""
        none = torch.zeros(len(reports), 0, dtype=torch.long)
        return ReportTokens(none, none.bool(), none, none.bool(), none)


class SentenceTokenizer:
    """Encodes reports as `[CLS] s1 s2 ... [SEP]` with at most `max_tokens` tokens.

    `<s>` and `</s>` where those are the tokenizer's marks. Words are what the tokenizer splits
    into pieces: it is a WordPiece, or a byte-level BPE, to which a report is its sentences with
    single spaces between all words. Thread-safe: the underlying Rust tokenizer is never
    reconfigured after construction.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._backend: Tokenizer = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        _check_numbers(self._backend)
        self._continues_word = _continuing_pieces(self._backend)
        self._kept: dict[str, _Pieces] = {}
        self._max_tokens = max_tokens
        self._cls_id = _required("CLS", tokenizer.cls_token_id, tokenizer.bos_token_id)
        self._sep_id = _required("SEP", tokenizer.sep_token_id, tokenizer.eos_token_id)
        self.pad_token_id = _required("PAD", tokenizer.pad_token_id)

    @classmethod
    def load(cls, name_or_folder: str | Path, *, max_tokens: int = 512) -> Self:
        """The tokenizer of a hub model (cached or downloaded) or of a local folder.

        Code beside it is never run. Raises InputError when neither is there, it comes with such
        code, has no fast (Rust) form, or is neither a WordPiece nor a byte-level BPE.
        """
        refuse_code(name_or_folder)
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(name_or_folder), use_fast=True, trust_remote_code=False
            )
        except Exception as error:  # damaged files make loaders raise anything
            if (Path(name_or_folder) / "tokenizer.json").exists():
                reason = " ".join(str(error).split())[:200]
                raise InputError(
                    f"{name_or_folder}: its tokenizer cannot be read ({reason}): fetch it again"
                ) from error
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
        """One more than the highest number of a token, special ones included."""
        return 1 + max(self._backend.get_vocab().values())

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
        ids, begins_word, lengths = self._pieces(reports)
        start, of_sentences = 0, iter(lengths)
        starts: list[int] = []
        kept: list[list[int]] = []
        for report in reports:
            own = [length for length in islice(of_sentences, len(report)) if length]
            if not own:
                raise ValueError(f"a report without tokens: {list(report)!r}")
            starts.append(start)
            kept.append(self._fitting(own))
            start += sum(own)

        tokens = [2 + sum(sentences) for sentences in kept]
        width = -(-max(tokens) // _TOKEN_MULTIPLE) * _TOKEN_MULTIPLE
        width = min(width, self._max_tokens)
        rows = np.arange(len(kept))
        # Of each token between the marks its row, its column, and its place among all pieces.
        inner = np.array(tokens) - 2
        row = rows.repeat(inner)
        nth = np.arange(inner.sum()) - (inner.cumsum() - inner).repeat(inner)
        source = np.array(starts).repeat(inner) + nth
        numbers = list(chain.from_iterable(range(len(sentences)) for sentences in kept))
        token_ids = np.full((len(kept), width), self.pad_token_id, dtype=np.int64)
        sentence_index = np.full((len(kept), width), -1, dtype=np.int64)
        word_starts = np.zeros((len(kept), width), dtype=np.bool_)
        token_ids[:, 0], token_ids[rows, inner + 1] = self._cls_id, self._sep_id
        token_ids[row, nth + 1], word_starts[row, nth + 1] = ids[source], begins_word[source]
        sentence_index[row, nth + 1] = np.repeat(numbers, list(chain.from_iterable(kept)))
        word_index = np.where(sentence_index >= 0, np.cumsum(word_starts, axis=1) - 1, -1)
        return ReportTokens(
            token_ids=torch.from_numpy(token_ids),
            token_mask=torch.from_numpy(_prefix_mask(tokens, width)),
            sentence_index=torch.from_numpy(sentence_index),
            sentence_mask=torch.from_numpy(_prefix_mask([len(s) for s in kept])),
            word_index=torch.from_numpy(word_index),
            lengths=tuple(tokens),
            sentences=tuple(map(len, kept)),
            words=tuple((word_index.max(axis=1) + 1).tolist()),
        )

    def _pieces(
        self, reports: Sequence[Sequence[str]]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], list[int]]:
        """The token ids of all sentences, which of them begin a word, and how many each has."""
        if self._continues_word is not None:
            flat = list(chain.from_iterable(reports))
        else:
            # White space would be tokens, but for that before a word: a part of its piece.
            texts = chain.from_iterable(enumerate(map(single_spaced, each)) for each in reports)
            flat = [f" {text}" if number and text else text for number, text in texts]
        known = {text: found for text in flat if (found := self._kept.get(text)) is not None}
        if new := [text for text in dict.fromkeys(flat) if text not in known]:
            encoded = dict(zip(new, self._encoded(new), strict=True))
            known |= encoded
            if len(self._kept) < _SENTENCES_KEPT:
                self._kept |= encoded
        pieces = [known[text] for text in flat]
        ids = np.concatenate([np.empty(0, np.int64), *(each for each, _ in pieces)])
        begins_word = np.concatenate([np.empty(0, np.bool_), *(each for _, each in pieces)])
        return ids, begins_word, [len(each) for each, _ in pieces]

    def _encoded(self, texts: list[str]) -> list[_Pieces]:
        if self._continues_word is not None:
            encoded = self._backend.encode_batch_fast(texts, add_special_tokens=False)
            all_ids = [np.array(each.ids, dtype=np.int64) for each in encoded]
            return [(ids, ~self._continues_word[ids]) for ids in all_ids]
        encoded = self._backend.encode_batch(texts, add_special_tokens=False)
        return [
            (np.array(each.ids, np.int64), np.array(_word_starts(each.word_ids), np.bool_))
            for each in encoded
        ]

    def _fitting(self, sentences: list[int]) -> list[int]:
        """Of the sentences' lengths those that are kept; that of a first one too long is cut."""
        room = self._max_tokens - 2
        fitting = bisect_right(list(accumulate(sentences)), room)
        return sentences[:fitting] or [min(sentences[0], room)]


ReportTokenizer: TypeAlias = SentenceTokenizer | NoReports


def _continuing_pieces(backend: Tokenizer) -> NDArray[np.bool_] | None:
    """Of a WordPiece True for the tokens ("##ing") that go on with the word of the one before.

    The tokenizer's own account of words needs the slower of its two encodings. A byte-level BPE
    has no other: None. Raises InputError for a tokenizer of another kind.
    """
    if isinstance(backend.model, models.WordPiece):
        prefix = backend.model.continuing_subword_prefix
        pieces = backend.get_vocab()
        continues = np.zeros(1 + max(pieces.values()), dtype=np.bool_)
        continues[[number for piece, number in pieces.items() if piece.startswith(prefix)]] = True
        return continues
    splitter = backend.pre_tokenizer
    if isinstance(backend.model, models.BPE) and splitter is not None:
        words = [word for word, _ in splitter.pre_tokenize_str("a b")]
        if words[-1].startswith(_SPACE):
            return None
    raise InputError(f"the tokenizer is neither a WordPiece nor a byte-level BPE: {_KNOWN}")


def _check_numbers(backend: Tokenizer) -> None:
    """Raise InputError for tokens that share a number, or numbers far above those of all tokens.

    Tables are as long as the highest.
    """
    numbers = backend.get_vocab().values()
    if not numbers or len(set(numbers)) < len(numbers) or max(numbers) > 2 * len(numbers) + 1000:
        raise InputError("the tokenizer's vocabulary is damaged: its numbers are not each token's")


def single_spaced(text: str) -> str:
    """The text with one space between words, and none around them."""
    return " ".join(text.split())


def _word_starts(words: Sequence[int | None]) -> list[bool]:
    """Which tokens begin a word, by each one's word; None, for a special token, is one itself."""
    before = chain([None], words)
    return [word is None or word != last for last, word in zip(before, words, strict=False)]


def _prefix_mask(lengths: Sequence[int], width: int | None = None) -> NDArray[np.bool_]:
    columns = np.arange(max(lengths) if width is None else width)
    return columns < np.asarray(lengths)[:, None]


def _required(name: str, *token_ids: int | None) -> int:
    """The first there is."""
    for token_id in token_ids:
        if token_id is not None:
            return token_id
    raise InputError(f"the tokenizer has no {name} token: {_KNOWN}")
