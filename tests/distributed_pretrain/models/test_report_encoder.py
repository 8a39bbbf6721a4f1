from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
)

from data_shards.errors import InputError
from distributed_pretrain.models.report_encoder import (
    ReportEncoder,
    new_report_encoder,
    pretrained_report_encoder,
)
from distributed_pretrain.models.trunks.modernbert import ModernBertTrunk

every_kind = pytest.mark.parametrize("kind", ["bert", "modernbert"])


def small_encoder(kind: str = "bert", *, dropout: float = 0.0) -> ReportEncoder:
    torch.manual_seed(0)
    return new_report_encoder(
        40,
        architecture=kind,
        hidden_size=16,
        layers=3,
        heads=2,
        intermediate_size=32,
        max_tokens=32,
        dropout=dropout,
    )


def reports() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two reports, `[CLS] s1 s1 s2 s2 s2 [SEP]` and `[CLS] s1 s1 s1 [SEP]` with padding."""
    sentence_index = torch.tensor([[-1, 0, 0, 1, 1, 1, -1], [-1, 0, 0, 0, -1, -1, -1]])
    token_mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2]).bool()
    torch.manual_seed(1)
    token_ids = torch.randint(1, 40, (2, 7)) * token_mask
    sentence_mask = torch.tensor([[True, True], [True, False]])
    return token_ids, token_mask, sentence_index, sentence_mask


@every_kind
def test_longer_padding_changes_nothing(kind: str) -> None:
    encoder = small_encoder(kind)
    token_ids, token_mask, index, mask = reports()
    wider = (
        torch.nn.functional.pad(token_ids, (0, 3), value=7),
        torch.nn.functional.pad(token_mask, (0, 3), value=False),
        torch.nn.functional.pad(index, (0, 3), value=-1),
        torch.nn.functional.pad(mask, (0, 2), value=False),
    )
    expected, padded = encoder(token_ids, token_mask, index, mask), encoder(*wider)
    torch.testing.assert_close(padded[:, :2], expected)
    assert not padded[:, 2:].any()


@every_kind
def test_a_sentence_read_alone_is_the_same_in_every_report(kind: str) -> None:
    encoder = small_encoder(kind)
    token_ids, token_mask, index, mask = reports()
    whole = encoder(token_ids, token_mask, index, mask, alone=True)
    second = torch.cat([token_ids[:1, :1], token_ids[:1, 3:]], dim=1)
    by_itself = torch.tensor([[-1, 0, 0, 0, -1]])
    everything = torch.ones(1, 5, dtype=torch.bool)
    own = encoder(second, everything, by_itself, everything[:, :1], alone=True)
    torch.testing.assert_close(whole[0, 1], own[0, 0])
    assert whole[1, 1].eq(0).all()
    in_context = encoder(token_ids, token_mask, index, mask)
    assert (in_context[0, 1] - whole[0, 1]).abs().max() > 1e-3
    # Nobody sees who does not take part: a row of padding as long as the encoder reads.
    nothing = torch.zeros(1, 32, dtype=torch.long)
    lost = encoder(nothing, nothing.bool(), nothing - 1, nothing[:, :1].bool(), alone=True)
    assert lost.eq(0).all()


@every_kind
def test_a_row_without_tokens_leaves_every_gradient_finite(kind: str) -> None:
    encoder = small_encoder(kind)
    token_ids, token_mask, index, mask = reports()
    token_mask[1], index[1], mask[1] = False, -1, False
    embeddings = encoder(token_ids, token_mask, index, mask)
    embeddings.square().sum().backward()
    assert not embeddings[1].any()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize(
    ("kind", "trained"),
    [
        ("bert", ("bert.encoder.layer.2.",)),
        ("modernbert", ("bert.layers.2.", "bert.final_norm.")),
    ],
)
def test_frozen_layers_are_the_embeddings_and_the_first_ones(
    kind: str, trained: tuple[str, ...]
) -> None:
    encoder = small_encoder(kind)
    encoder.freeze(2)
    for name, parameter in encoder.named_parameters():
        assert parameter.requires_grad == name.startswith(trained), name


@every_kind
def test_dropout_stays_active_in_frozen_layers(kind: str) -> None:
    encoder = small_encoder(kind, dropout=0.5)
    encoder.freeze(3)
    token_ids, token_mask, _, _ = reports()
    assert not torch.equal(*(encoder.embed_tokens(token_ids, token_mask) for _ in range(2)))


@every_kind
def test_freezing_more_layers_than_there_are_is_refused(kind: str) -> None:
    with pytest.raises(InputError, match="frozen_layers=4: the report encoder has 3 layers"):
        small_encoder(kind).freeze(4)


def test_a_saved_bert_loads_from_its_folder_without_its_pooler(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    saved = BertModel(config).half()
    saved.save_pretrained(tmp_path)
    encoder = pretrained_report_encoder(str(tmp_path))
    assert (encoder.dim, encoder.max_tokens, encoder.vocabulary_size) == (16, 512, 40)
    assert not any("pooler" in name for name, _ in encoder.named_parameters())
    for name, value in encoder.bert.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, saved.state_dict()[name].float())


def test_a_saved_modernbert_is_known_by_its_config(tmp_path: Path) -> None:
    saved = small_encoder("modernbert")
    saved.bert.save_pretrained(tmp_path)
    encoder = pretrained_report_encoder(str(tmp_path))
    assert (encoder.dim, encoder.max_tokens, encoder.vocabulary_size) == (16, 32, 40)
    assert len(encoder.trunk.layers) == 3
    for name, value in saved.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], value)


def test_a_roberta_is_laid_out_like_a_bert_and_counts_positions_after_paddings(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=10,
    )
    RobertaModel(config).save_pretrained(tmp_path)
    encoder = pretrained_report_encoder(str(tmp_path))
    assert encoder.max_tokens == 8
    token_ids = torch.randint(2, 40, (1, 8))
    hidden, attention = encoder.embed_tokens_with_attention(token_ids, token_ids > 0)
    assert hidden.isfinite().all()
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(1))


def test_a_model_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    config = DistilBertConfig(vocab_size=40, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    DistilBertModel(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a DistilBertModel is not laid out like a BERT"):
        pretrained_report_encoder(str(tmp_path))


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a folder without model weights"):
        pretrained_report_encoder(str(tmp_path))


def test_a_hub_that_cannot_be_reached_says_how_to_fetch_the_model() -> None:
    with pytest.raises(InputError, match="hf download some-group/no-such-bert --local-dir"):
        pretrained_report_encoder("some-group/no-such-bert")


@every_kind
def test_tokens_are_the_sum_of_the_last_layers(kind: str) -> None:
    encoder = small_encoder(kind)
    token_ids, token_mask, _, _ = reports()
    states = encoder.bert(
        token_ids, attention_mask=token_mask.long(), output_hidden_states=True
    ).hidden_states
    torch.testing.assert_close(
        encoder.embed_tokens(token_ids, token_mask, last_layers=2), states[-1] + states[-2]
    )
    assert torch.equal(encoder.embed_tokens(token_ids, token_mask), states[-1])


@every_kind
def test_more_layers_than_there_are_cannot_be_summed_or_kept(kind: str) -> None:
    token_ids, token_mask, _, _ = reports()
    with pytest.raises(InputError, match=r"method\.last_layers=4: the report encoder has 3 layers"):
        small_encoder(kind).embed_tokens(token_ids, token_mask, last_layers=4)
    with pytest.raises(InputError, match="layers=4: the report encoder has 3 layers"):
        small_encoder(kind).keep_layers(4)


@every_kind
def test_a_cut_encoder_ends_after_its_first_layers(kind: str, tmp_path: Path) -> None:
    whole, cut = small_encoder(kind), small_encoder(kind)
    token_ids, token_mask, _, _ = reports()
    cut.keep_layers(2)
    states = whole.bert(
        token_ids, attention_mask=token_mask.long(), output_hidden_states=True
    ).hidden_states
    # A ModernBERT has a norm after its last layer, whichever that is.
    expected = whole.bert.final_norm(states[2]) if kind == "modernbert" else states[2]
    torch.testing.assert_close(cut.embed_tokens(token_ids, token_mask), expected)
    cut.bert.save_pretrained(tmp_path)
    loaded = pretrained_report_encoder(str(tmp_path))
    torch.testing.assert_close(loaded.embed_tokens(token_ids, token_mask), expected)


def with_a_narrow_window() -> ReportEncoder:
    """A ModernBERT whose last layer sees two tokens to each side."""
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        local_attention=4,
        pad_token_id=0,
    )
    return ReportEncoder(ModernBertTrunk(ModernBertModel(config)))


@pytest.mark.parametrize(
    "make", [small_encoder, partial(small_encoder, "modernbert"), with_a_narrow_window]
)
def test_the_attention_of_cls_is_that_of_the_last_layer(
    make: Callable[[], ReportEncoder],
) -> None:
    encoder = make()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(3)  # so that no attention is nearly uniform
    token_ids, token_mask, _, _ = reports()
    hidden, attention = encoder.embed_tokens_with_attention(token_ids, token_mask)
    again = encoder.embed_tokens(token_ids, token_mask)
    encoder.bert.set_attn_implementation("eager")
    expected = encoder.bert(
        token_ids, attention_mask=token_mask.long(), output_attentions=True
    ).attentions[-1]
    torch.testing.assert_close(attention, expected[:, :, 0].mean(dim=1))
    torch.testing.assert_close(hidden, again)
    assert hidden.requires_grad
    assert not attention.requires_grad
    assert not attention[~token_mask].any()
