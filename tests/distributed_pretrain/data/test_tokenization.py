"""Sentences to tokens."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from data_shards.errors import InputError
from distributed_pretrain.batch import ReportTokens
from distributed_pretrain.data import tokenization
from distributed_pretrain.data.tokenization import SentenceTokenizer
from distributed_pretrain.data.tokenizer_training import train_byte_level_bpe, train_wordpiece

CORPUS = [
    "The lungs are clear.",
    "There is a small left pleural effusion.",
    "Heart size is normal.",
    "No pneumothorax is seen.",
]


def train_like_roberta(texts: Sequence[str], folder: Path) -> None:
    """A byte-level BPE whose marks are <s> and </s>, and to which a first word has no space."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        cls_token="<s>",
        bos_token="<s>",
        sep_token="</s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    ).save_pretrained(str(folder))


TRAINERS: dict[str, Callable[[Sequence[str], Path], None]] = {
    "wordpiece": partial(train_wordpiece, vocabulary_size=120),
    "byte_level": partial(train_byte_level_bpe, vocabulary_size=320),
    "like_roberta": train_like_roberta,
}


@pytest.fixture(scope="module", params=TRAINERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    TRAINERS[request.param]([*CORPUS, "Chest x-ray, unchanged."], path)
    return path


def ids_of(tokenizer: SentenceTokenizer, sentences: Sequence[str], sentence: int) -> list[int]:
    tokens = tokenizer.encode([sentences])
    kept: list[int] = tokens.token_ids[0][tokens.sentence_index[0] == sentence].tolist()
    return kept


def test_a_report_is_cls_sentences_sep(folder: Path) -> None:
    tokens = SentenceTokenizer.load(folder).encode([CORPUS[:3]])
    reference = AutoTokenizer.from_pretrained(str(folder))(" ".join(CORPUS[:3]))["input_ids"]
    length = len(reference)
    assert tokens.token_ids[0, :length].tolist() == reference
    assert tokens.token_mask[0].sum() == length
    inner = tokens.sentence_index[0, 1 : length - 1]
    assert (inner.diff() >= 0).all()
    assert set(inner.tolist()) == {0, 1, 2}
    assert tokens.sentence_index[0, 0] == tokens.sentence_index[0, length - 1] == -1


def test_padding_is_marked_and_tokens_fill_up_a_multiple_of_eight(folder: Path) -> None:
    tokenizer = SentenceTokenizer.load(folder)
    tokens = tokenizer.encode([CORPUS, CORPUS[:1]])
    assert tokens.token_ids.shape[1] % 8 == 0
    assert tokens.sentence_mask.tolist() == [[True] * 4, [True, False, False, False]]
    padding = ~tokens.token_mask
    assert padding[1].any()
    assert (tokens.token_ids[padding] == tokenizer.pad_token_id).all()
    assert (tokens.sentence_index[padding] == -1).all()


def test_a_report_reads_the_same_alone_and_in_a_batch(folder: Path) -> None:
    tokenizer = SentenceTokenizer.load(folder)
    alone, batch = tokenizer.encode([CORPUS[:1]]), tokenizer.encode([CORPUS, CORPUS[:1]])
    width = alone.token_ids.shape[1]
    torch.testing.assert_close(batch.token_ids[1, :width], alone.token_ids[0])
    torch.testing.assert_close(batch.sentence_index[1, :width], alone.sentence_index[0])


def words_of(tokens: ReportTokens, row: int = 0) -> list[list[int]]:
    """The token ids of each word of a report, in order."""
    index = tokens.word_index[row]
    return [tokens.token_ids[row][index == word].tolist() for word in range(int(index.max()) + 1)]


def texts_of(folder: Path, tokens: ReportTokens) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    pieces = ("".join(tokenizer.convert_ids_to_tokens(word)) for word in words_of(tokens))
    return [word.replace("##", "").removeprefix("Ġ").lower() for word in pieces]


def test_the_pieces_of_a_word_share_a_number_and_a_mark_is_a_word(folder: Path) -> None:
    tokenizer = SentenceTokenizer.load(folder)
    sentences = ["Effusions, x-ray unchanged.", "The lungs are clear."]
    words = ["effusions", ",", "x", "-", "ray", "unchanged", ".", "the", "lungs", "are", "clear"]
    words.append(".")
    tokens = tokenizer.encode([sentences, CORPUS[:1]])
    assert texts_of(folder, tokens) == words
    assert max(map(len, words_of(tokens))) > 1
    assert words_of(tokens, 1) == words_of(tokenizer.encode([CORPUS[:1]]))
    assert torch.equal(tokens.word_index < 0, tokens.sentence_index < 0)


def test_words_are_those_that_the_tokenizer_counts(folder: Path) -> None:
    text = "Pleural-based (2.5 cm) opacity, ##odd unknownish ___ naïve ¶ effusions."
    reference = AutoTokenizer.from_pretrained(str(folder))(text, add_special_tokens=False)
    (words,) = SentenceTokenizer.load(folder).encode([[text]]).word_index
    assert words[words >= 0].tolist() == reference.word_ids()


def test_white_space_is_neither_a_token_nor_a_word(folder: Path) -> None:
    tokenizer = SentenceTokenizer.load(folder)
    wrapped = tokenizer.encode([["The lungs\n are   clear. ", "\tNo effusion."]])
    tokens = tokenizer.encode([["The lungs are clear.", "No effusion."]])
    assert torch.equal(wrapped.token_ids, tokens.token_ids)
    assert torch.equal(wrapped.word_index, tokens.word_index)


def test_a_special_token_in_the_text_is_a_word(folder: Path) -> None:
    pad = AutoTokenizer.from_pretrained(str(folder)).pad_token
    tokens = SentenceTokenizer.load(folder).encode([[f"lungs {pad}{pad} clear"]])
    assert [len(word) for word in words_of(tokens)][1:3] == [1, 1]


@pytest.mark.parametrize(
    ("model", "splitter"),
    [
        (models.BPE({"a": 0, "[PAD]": 1, "[CLS]": 2, "[SEP]": 3}, []), None),
        (models.BPE({"a": 0, "[PAD]": 1, "[CLS]": 2, "[SEP]": 3}, []), pre_tokenizers.Metaspace()),
        (models.Unigram([("[PAD]", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0)]), None),
    ],
)
def test_a_tokenizer_of_another_kind_is_refused(
    model: models.Model, splitter: pre_tokenizers.PreTokenizer | None
) -> None:
    backend = Tokenizer(model)
    if splitter is not None:
        backend.pre_tokenizer = splitter
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    with pytest.raises(InputError, match="use that of a BERT, a RoBERTa or a ModernBERT"):
        SentenceTokenizer(tokenizer, max_tokens=16)


def test_a_tokenizer_without_marks_is_refused(folder: Path) -> None:
    backend = AutoTokenizer.from_pretrained(str(folder)).backend_tokenizer
    with pytest.raises(InputError, match="the tokenizer has no CLS token: use that of a BERT"):
        SentenceTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend), max_tokens=16)


def test_no_word_reaches_across_sentences(folder: Path) -> None:
    # Without a full stop nothing but the sentence's end separates "clear" from "ing".
    tokens = SentenceTokenizer.load(folder).encode([["lungs clear", "ing", "the lungs"]])
    sentences, words = tokens.sentence_index[0], tokens.word_index[0]
    assert int(words.max()) + 1 == 5
    for word in range(5):
        assert len(sentences[words == word].unique()) == 1
    inner = words[words >= 0]
    assert (inner.diff() >= 0).all()


def test_a_cut_sentence_keeps_its_words(folder: Path) -> None:
    long = SentenceTokenizer.load(folder).encode([CORPUS[1:2]])
    cut = SentenceTokenizer.load(folder, max_tokens=8).encode([CORPUS[1:]])
    assert cut.word_index[0, 1:7].tolist() == long.word_index[0, 1:7].tolist()
    assert cut.word_index[0, 7] == -1


def test_from_the_first_sentence_that_does_not_fit_the_rest_is_dropped(folder: Path) -> None:
    lengths = [len(ids_of(SentenceTokenizer.load(folder), CORPUS, i)) for i in range(4)]
    exactly_two = 2 + lengths[0] + lengths[1]
    # The third sentence does not fit; the fourth would be short enough, and is dropped too.
    sentences = [CORPUS[0], CORPUS[1], CORPUS[2], "Is."]
    for room, kept in ((exactly_two, 2), (exactly_two - 1, 1), (exactly_two + 2, 2)):
        tokens = SentenceTokenizer.load(folder, max_tokens=room).encode([sentences, CORPUS[:1]])
        assert tokens.sentence_mask.sum(dim=1).tolist() == [kept, 1]
        assert int(tokens.token_mask[0].sum()) == 2 + sum(lengths[:kept])
        assert int(tokens.token_mask[1].sum()) == 2 + lengths[0]


def test_a_first_sentence_too_long_by_itself_is_cut(folder: Path) -> None:
    tokens = SentenceTokenizer.load(folder, max_tokens=8).encode([CORPUS[1:]])
    assert tokens.token_mask.sum() == 8
    assert tokens.sentence_mask.tolist() == [[True]]


def test_sentences_without_tokens_leave_no_gap(folder: Path) -> None:
    tokens = SentenceTokenizer.load(folder).encode([[CORPUS[0], " \n", CORPUS[1]]])
    assert tokens.sentence_mask.tolist() == [[True, True]]
    assert set(tokens.sentence_index[0].tolist()) == {-1, 0, 1}


def test_a_report_without_tokens_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="a report without tokens"):
        SentenceTokenizer.load(folder).encode([CORPUS, [" "]])


def test_threads_encode_the_same_at_once(folder: Path) -> None:
    tokenizer = SentenceTokenizer.load(folder)
    expected = [tokenizer.encode([CORPUS[i:], CORPUS[:i]]) for i in range(1, 4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            found = pool.map(lambda i: tokenizer.encode([CORPUS[i:], CORPUS[:i]]), range(1, 4))
            for ours, wanted in zip(found, expected, strict=True):
                assert torch.equal(ours.token_ids, wanted.token_ids)
                assert torch.equal(ours.word_index, wanted.word_index)


@pytest.mark.parametrize("kind", ["wordpiece", "byte_level"])
def test_training_is_deterministic_and_saving_keeps_every_file(kind: str, tmp_path: Path) -> None:
    for name in ("once", "again"):
        TRAINERS[kind](CORPUS, tmp_path / name)
    once = SentenceTokenizer.load(tmp_path / "once")
    once.save(tmp_path / "saved")
    expected = (tmp_path / "once" / "tokenizer.json").read_bytes()
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == expected
    saved = SentenceTokenizer.load(tmp_path / "saved")
    assert saved.vocabulary_size == once.vocabulary_size <= 320
    assert ids_of(saved, CORPUS, 1) == ids_of(once, CORPUS, 1)
    assert once.pad_token_id == 0  # as new encoders take it to be


def test_a_byte_level_vocabulary_has_room_for_the_bytes(tmp_path: Path) -> None:
    train_byte_level_bpe(CORPUS, tmp_path, vocabulary_size=261)
    assert SentenceTokenizer.load(tmp_path).vocabulary_size == 261
    with pytest.raises(InputError, match=r"vocabulary_size=260: .* use 261 or more"):
        train_byte_level_bpe(CORPUS, tmp_path, vocabulary_size=260)


def test_a_new_byte_level_tokenizer_reads_a_word_the_same_wherever_it_stands(
    tmp_path: Path,
) -> None:
    train_byte_level_bpe(CORPUS, tmp_path, vocabulary_size=320)
    tokenizer = SentenceTokenizer.load(tmp_path)
    words = words_of(tokenizer.encode([["Lungs lungs", "LUNGS"]]))
    assert words == [words[0]] * 3
    assert len(words_of(tokenizer.encode([["(2.5 cm)."]]))) == 7


def test_unknown_words_are_split_into_known_pieces(folder: Path) -> None:
    tokenizer = SentenceTokenizer.load(folder)
    assert len(ids_of(tokenizer, ["effusions"], 0)) > len(ids_of(tokenizer, ["effusion"], 0))


def test_a_missing_tokenizer_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"no tokenizer found there: .*hf download"):
        SentenceTokenizer.load(tmp_path / "nothing")


def test_the_tokens_of_a_sentence_are_made_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = [CORPUS[:2], CORPUS[1:], CORPUS[:1]]
    keeping = SentenceTokenizer.load(folder)
    first = keeping.encode(reports)
    monkeypatch.setattr(keeping, "_backend", None)  # asked for no more
    monkeypatch.setattr(tokenization, "_SENTENCES_KEPT", 0)
    forgetful = SentenceTokenizer.load(folder)
    for again in (keeping.encode(reports), *(forgetful.encode(reports) for _ in range(2))):
        for one, other in zip(vars(first).values(), vars(again).values(), strict=True):
            assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    assert forgetful._kept == {}
