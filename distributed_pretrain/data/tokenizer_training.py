"""New tokenizers, of the words of the reports themselves; the tokenizer in a run's folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from data_shards.errors import InputError
from data_shards.files.atomic import made_whole
from data_shards.records.policies import select_sentences
from distributed_pretrain.data.quarantine import BadSampleError
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.tokenization import single_spaced

# Padding is number 0, as new models take it to be.
_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_NORMALIZER = normalizers.BertNormalizer(lowercase=True)
_PRE_TOKENIZER = pre_tokenizers.BertPreTokenizer()
_BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
# Letters, digits, or one other mark, each with the space before it.
_WORD = r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]"


def build_tokenizer(
    folder: Path, training: ShardSplit, make: Callable[[Iterable[str], Path], None]
) -> None:
    """Have `make` put a tokenizer of the sentences of the training split into a folder.

    Those are read as it asks for them. `folder` appears whole or not at all.
    """
    with made_whole(folder, folder=True) as unfinished:
        make(_sentences(training), unfinished)


def _sentences(split: ShardSplit) -> Iterator[str]:
    for position in range(len(split)):
        with contextlib.suppress(BadSampleError):  # training meets it again, and names it
            yield from select_sentences(split.read(position).report, split.policy)


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
    _save(_wordpiece(vocabulary=draft.get_vocab()), folder)


def train_byte_level_bpe(texts: Iterable[str], folder: Path, *, vocabulary_size: int) -> None:
    """Train a lower-casing byte-level BPE and save it where `load` finds it.

    Unlike a RoBERTa's it takes each mark for a word, and a report's first word for one like any.
    The same texts give the same files. Raises InputError when the vocabulary is smaller than the
    bytes.
    """
    fewest = len(_BYTES) + len(_SPECIAL_TOKENS)
    if vocabulary_size < fewest:
        raise InputError(
            f"vocabulary_size={vocabulary_size}: a byte-level tokenizer begins with {len(_BYTES)} "
            f"bytes and {len(_SPECIAL_TOKENS)} special tokens: use {fewest} or more"
        )
    tokenizer = Tokenizer(models.BPE())
    clean = [normalizers.NFC(), normalizers.Lowercase(), normalizers.Strip()]
    tokenizer.normalizer = normalizers.Sequence([*clean, normalizers.Prepend(" ")])
    words = pre_tokenizers.Split(Regex(_WORD), behavior="isolated")
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, in_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(_SPECIAL_TOKENS),
        initial_alphabet=_BYTES,
        show_progress=False,
    )
    tokenizer.train_from_iterator(map(single_spaced, texts), trainer)
    _save(tokenizer, folder)


def _wordpiece(vocabulary: dict[str, int] | None) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = _NORMALIZER
    tokenizer.pre_tokenizer = _PRE_TOKENIZER
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _save(tokenizer: Tokenizer, folder: Path) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **dict(zip(names, _SPECIAL_TOKENS, strict=True))
    ).save_pretrained(str(folder))
