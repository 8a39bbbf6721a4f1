"""Sentences to tokens."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from data_shards.errors import InputError
from distributed_pretrain.batch import ReportTokens
from distributed_pretrain.data.tokenization import SentenceTokenizer, train_wordpiece

CORPUS = [
    "The lungs are clear.",
    "There is a small left pleural effusion.",
    "Heart size is normal.",
    "No pneumothorax is seen.",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    train_wordpiece(CORPUS, path, vocabulary_size=120)
    return path


def ids_of(tokenizer: SentenceTokenizer, sentences: Sequence[str], sentence: int) -> list[int]:
    tokens = tokenizer.encode([sentences])
    kept: list[int] = tokens.token_ids[0][tokens.sentence_index[0] == sentence].tolist()
    return kept


def test_a_report_is_cls_sentences_sep(folder: Path) -> None:
    from transformers import AutoTokenizer

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


def test_the_pieces_of_a_word_share_a_number(folder: Path) -> None:
    tokenizer = SentenceTokenizer.load(folder)
    sentences = ["Effusions, x-ray unchanged.", "The lungs are clear."]
    words = ["effusions", ",", "x", "-", "ray", "unchanged", ".", "the", "lungs", "are", "clear"]
    words.append(".")
    tokens = tokenizer.encode([sentences, CORPUS[:1]])
    assert words_of(tokens) == [ids_of(tokenizer, [word], 0) for word in words]
    assert max(map(len, words_of(tokens))) > 1
    assert words_of(tokens, 1) == words_of(tokenizer.encode([CORPUS[:1]]))
    assert torch.equal(tokens.word_index < 0, tokens.sentence_index < 0)


def test_words_are_those_that_the_tokenizer_counts(folder: Path) -> None:
    from transformers import AutoTokenizer

    text = "Pleural-based (2.5 cm) opacity, ##odd unknownish ___ naïve ¶ effusions."
    reference = AutoTokenizer.from_pretrained(str(folder))(text, add_special_tokens=False)
    (words,) = SentenceTokenizer.load(folder).encode([[text]]).word_index
    assert words[words >= 0].tolist() == reference.word_ids()


def test_a_tokenizer_that_is_no_wordpiece_is_refused() -> None:
    backend = Tokenizer(models.BPE({"a": 0, "[PAD]": 1, "[CLS]": 2, "[SEP]": 3}, []))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    with pytest.raises(InputError, match="use that of a BERT"):
        SentenceTokenizer(tokenizer, max_tokens=16)


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
    sentences = [CORPUS[0], CORPUS[1], CORPUS[2], "Clear."]
    for room, kept in ((exactly_two, 2), (exactly_two - 1, 1), (exactly_two + 4, 2)):
        tokens = SentenceTokenizer.load(folder, max_tokens=room).encode([sentences])
        assert tokens.sentence_mask.tolist() == [[True] * kept]
        assert int(tokens.token_mask.sum()) == 2 + sum(lengths[:kept])


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


def test_training_is_deterministic_and_saving_keeps_every_file(
    folder: Path, tmp_path: Path
) -> None:
    train_wordpiece(CORPUS, tmp_path / "again", vocabulary_size=120)
    SentenceTokenizer.load(folder).save(tmp_path / "saved")
    expected = (folder / "tokenizer.json").read_bytes()
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == expected
    saved = SentenceTokenizer.load(tmp_path / "saved")
    assert saved.vocabulary_size == SentenceTokenizer.load(folder).vocabulary_size <= 120
    assert ids_of(saved, CORPUS, 1) == ids_of(SentenceTokenizer.load(folder), CORPUS, 1)


def test_unknown_words_are_split_into_known_pieces(folder: Path) -> None:
    tokenizer = SentenceTokenizer.load(folder)
    assert len(ids_of(tokenizer, ["effusions"], 0)) > len(ids_of(tokenizer, ["effusion"], 0))


def test_a_missing_tokenizer_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"no tokenizer found there: .*hf download"):
        SentenceTokenizer.load(tmp_path / "nothing")
