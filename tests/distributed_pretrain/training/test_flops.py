from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from distributed_pretrain.methods.objective import Method
from distributed_pretrain.models.image_encoder import make_image_encoder
from distributed_pretrain.models.report_encoder import new_report_encoder
from distributed_pretrain.pretrain.full_batch import full_batch
from distributed_pretrain.training.flops import (
    Arithmetic,
    StepFlops,
    peak_flops_per_second,
    training_flops,
)
from tests.tiny.methods import tiny_lovt
from tests.tiny.sizes import HEADS, REPORT_ENCODER

# torchvision's figure for ResNet-50 at 224 px, less its classifier.
RESNET50_MULTIPLY_ADDS = 4_089_184_256 - 2048 * 1000
FIRST_CONVOLUTION_MULTIPLY_ADDS = 112 * 112 * 64 * 3 * 7 * 7
HIDDEN, TOKENS = 96, 24
probe = partial(full_batch, torch.device("cpu"), image_size_px=64)


def flops_of(method: Method) -> StepFlops:
    return StepFlops.of(method, probe, max_tokens=method.max_tokens)


def counted_step(method: Method, *, rows: int, sentences: int) -> int:
    batch = probe(rows=rows, tokens=16 * sentences)
    return training_flops(lambda: method.loss(method(batch))["total"])


def bert_layer_flops(tokens: int) -> int:
    """Forward: queries, keys, values, output (4 h²), the two linear maps (8 h²), attention."""
    return 2 * tokens * 12 * HIDDEN**2 + 4 * tokens**2 * HIDDEN


def report_encoder_flops(layers: int, frozen: int | None, tokens: int = TOKENS) -> int:
    encoder = new_report_encoder(
        50, hidden_size=HIDDEN, layers=layers, heads=3, intermediate_size=4 * HIDDEN
    )
    if frozen is not None:
        encoder.freeze(frozen)
    token_ids = torch.ones(2, tokens, dtype=torch.long)
    mask = torch.ones(2, tokens, dtype=torch.bool)
    return training_flops(lambda: encoder.train().embed_tokens(token_ids, mask).sum())


def test_resnet50_costs_three_times_its_published_forward_less_the_gradient_of_the_image() -> None:
    encoder = make_image_encoder("resnet50")
    images = torch.zeros(2, 1, 224, 224)
    forward = 2 * RESNET50_MULTIPLY_ADDS
    expected = 2 * (3 * forward - 2 * FIRST_CONVOLUTION_MULTIPLY_ADDS)
    assert training_flops(lambda: encoder(images).sum()) == expected


def test_a_trained_transformer_layer_costs_three_times_its_forward() -> None:
    assert report_encoder_flops(3, None) == 2 * 3 * 3 * bert_layer_flops(TOKENS)
    assert report_encoder_flops(3, None, tokens=7) == 2 * 3 * 3 * bert_layer_flops(7)


def test_frozen_layers_cost_their_forward_alone() -> None:
    # The first trained layer's queries, keys and values give their input no gradient.
    saved = 2 * TOKENS * 3 * HIDDEN**2
    expected = 2 * (2 * bert_layer_flops(TOKENS) + 3 * bert_layer_flops(TOKENS) - saved)
    assert report_encoder_flops(3, 2) == expected


def test_what_checkpointing_computes_again_is_not_counted() -> None:
    layer = nn.Linear(8, 8)
    rows = torch.ones(4, 8, requires_grad=True)

    def recomputed() -> Tensor:
        output = checkpoint(layer, rows, use_reentrant=False)
        assert isinstance(output, Tensor)
        return output.sum()

    assert training_flops(recomputed) == training_flops(lambda: layer(rows).sum()) == 3 * 2 * 4 * 64


def test_products_in_place_and_into_a_buffer_are_counted() -> None:
    weight = torch.ones(3, 5, requires_grad=True)

    def compute() -> Tensor:
        with torch.no_grad():
            torch.mm(weight.T, weight, out=torch.empty(5, 5))
            torch.zeros(5, 5).addmm_(weight.T, weight)
        return weight.sum()

    assert training_flops(compute) == 2 * 2 * 5 * 3 * 5


@pytest.mark.parametrize(("rows", "sentences"), [(5, 1), (2, 4), (7, 3)])
def test_the_polynomial_is_exact_where_it_was_not_fitted(rows: int, sentences: int) -> None:
    method = tiny_lovt()
    flops = flops_of(method)
    counted = counted_step(method, rows=rows, sentences=sentences)
    assert flops.per_step(rows=rows, tokens=16 * sentences) == pytest.approx(counted, rel=1e-12)


def test_heads_alignment_and_losses_cost_what_the_documentation_says() -> None:
    method = tiny_lovt()
    rows, sentences, regions = 3, 4, 4
    batch = probe(rows=rows, tokens=16 * sentences)
    report = batch.report
    encoders = training_flops(lambda: method.image_encoder(batch.images).sum()) + training_flops(
        lambda: method.report_encoder.embed_tokens(report.token_ids, report.token_mask).sum()
    )
    d, hidden, heads = (
        HEADS[name] for name in ("embedding_dim", "projection_hidden_dim", "pooling_heads")
    )
    forward = 6 * d**2 * (regions + sentences) + 6 * sentences * regions * d
    forward += 2 * d * (regions**2 + sentences**2)
    for dim, parts in ((method.image_encoder.channels, regions), (32, sentences)):
        forward += (parts + 1) * 2 * hidden * (dim + d)
        # One head product more than the maps: the bias of the keys.
        forward += 8 * dim**2 + 4 * heads * parts * dim + 2 * dim
    expected = encoders + 3 * (rows * forward + 2 * rows**2 * d)
    assert counted_step(method, rows=rows, sentences=sentences) == expected


def test_all_pairs_cost_the_similarities_of_the_global_loss_and_their_two_gradients() -> None:
    flops = flops_of(tiny_lovt())
    assert flops.per_pair == pytest.approx((3 * 2 * HEADS["embedding_dim"], 0), abs=1e-4)


def test_counting_leaves_no_trace() -> None:
    method = tiny_lovt().eval()
    batch = probe(rows=2, tokens=16)
    method.loss(method(batch))["total"].backward()
    before = {name: each.clone() for name, each in method.state_dict().items()}
    gradients = {name: each.grad for name, each in method.named_parameters()}
    copies = {name: None if each is None else each.clone() for name, each in gradients.items()}
    random_state = torch.random.get_rng_state()
    flops_of(method)
    assert not method.training
    assert torch.equal(random_state, torch.random.get_rng_state())
    torch.testing.assert_close(dict(method.state_dict()), before, rtol=0, atol=0)
    for name, parameter in method.named_parameters():
        assert parameter.grad is gradients[name]
        torch.testing.assert_close(parameter.grad, copies[name], rtol=0, atol=0)


def test_a_report_encoder_of_few_tokens_is_counted_too() -> None:
    flops = flops_of(tiny_lovt(report_encoder=REPORT_ENCODER | {"max_tokens": 12}))
    assert flops.tokens_a_sentence == 4
    assert flops.per_step(rows=2, tokens=12) > flops.per_step(rows=2, tokens=8) > 0


def test_the_counted_batch_is_one_that_real_attention_accepts() -> None:
    method = tiny_lovt()
    batch = probe(rows=2, tokens=50)
    assert torch.isfinite(method.loss(method(batch))["total"])
    assert F.one_hot(batch.report.sentence_index[0] + 1).sum(0).tolist() == [2, 15, 16, 17]


def test_what_a_method_does_not_read_costs_nothing() -> None:
    method = tiny_lovt()
    more = partial(probe, views="frontal_lateral", classes=3)
    ours = StepFlops.of(method, more, max_tokens=method.max_tokens)
    assert ours.per_step(rows=2, tokens=16) == flops_of(method).per_step(rows=2, tokens=16)


@pytest.mark.parametrize(
    ("name", "arithmetic", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100-PCIE-40GB", "tf32", 156),
        ("NVIDIA A100-SXM4-80GB", "float32", 19.5),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H200", "bf16", 989.4),
        ("Tesla V100-SXM2-32GB", "float32", 15.7),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
    ],
)
def test_known_devices_have_their_published_peak(
    name: str, arithmetic: Arithmetic, teraflops: float
) -> None:
    assert peak_flops_per_second(name, arithmetic) == pytest.approx(teraflops * 1e12)


@pytest.mark.parametrize(
    "name",
    [
        "cpu",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA A1000",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GH200 480GB",
    ],
)
def test_devices_that_only_look_known_have_no_peak(name: str) -> None:
    assert peak_flops_per_second(name, "bf16") is None


def test_a_v100_has_no_bf16() -> None:
    assert peak_flops_per_second("Tesla V100-SXM2-32GB", "bf16") is None
