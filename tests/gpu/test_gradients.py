"""Gradients that are cached, or written by hand, beside those of automatic differentiation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distributed_pretrain.benchmark import pairs
from distributed_pretrain.benchmark.loss import TEMPERATURE, embeddings, loss_forms
from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.methods.lovt.method import Lovt
from distributed_pretrain.methods.objective import Contrasted, sum_of
from distributed_pretrain.training.engine.ddp import Engine, build_optimizer
from distributed_pretrain.training.engine.device import set_device_up
from distributed_pretrain.training.gradients import accumulate_gradients
from distributed_pretrain.training.settings import OptimizerConfig, TrainingConfig
from tests.gpu.devices import on_each_device, slow_on_a_cpu
from tests.tiny.batches import pairs_of_sentences, random_batch, with_host_facts
from tests.tiny.methods import tiny_lovt, tiny_method, tiny_profile
from tests.tiny.sizes import IMAGE_ENCODER, REPORT_ENCODER

PIECES, SEED = 3, 7


@pytest.fixture(autouse=True)
def _whole_products(device: torch.device) -> None:
    set_device_up(TrainingConfig(tf32=False))


@on_each_device
def test_groups_of_one_forward_have_the_gradients_of_their_own_micro_batches(
    device: torch.device,
) -> None:
    """Batch norms see each group by itself: torch's kernels on a GPU, plain operations here."""
    config = tiny_profile("phantom_lovt", norm="sync")
    whole = with_host_facts(random_batch(config, 12)).to(device)
    found = []
    for groups in ((1, 1, 1), (2, 1)):
        method = tiny_method(config).train().to(device)
        engine = Engine(TrainingConfig(accumulation="plain"))
        engine.prepare(method, build_optimizer(OptimizerConfig(), method))
        parts = whole.split(groups, pack=True)
        accumulate_gradients(
            engine, parts, exact=False, seed=SEED, measure_norms=False, groups=groups
        )
        found.append([p.grad for p in method.parameters() if p.grad is not None])
    own, together = found
    assert len(own) == len(together) > 0
    assert relative_error(together, own) < 1e-4


def relative_error(found: list[Tensor], expected: list[Tensor]) -> float:
    flat, wanted = (torch.cat([t.flatten().double() for t in each]) for each in (found, expected))
    return float((flat - wanted).norm() / wanted.norm())


def lovt_with_dropout() -> Lovt:
    """With norms that keep samples apart."""
    return tiny_lovt(
        image_encoder=IMAGE_ENCODER | {"norm": "group"},
        projection_norm="group",
        report_encoder=REPORT_ENCODER | {"dropout": 0.1},
    ).train()


def check_exact_accumulation(device: torch.device, *, compiled: bool) -> None:
    method = lovt_with_dropout().to(device)
    batch = pairs_of_sentences(3, 1, 2, 1, 2, 3).to(device)
    engine = Engine(TrainingConfig(accumulation_steps=PIECES))
    engine.prepare(method, build_optimizer(OptimizerConfig(), method))
    parts = batch.split([1] * PIECES)
    # All at once, each part's dropout drawn as in accumulation.
    outputs = []
    for number, part in enumerate(parts):
        torch.manual_seed(SEED + number)
        outputs.append(method(part))
    contrasted = [method.contrasted(each) for each in outputs]
    terms = method.batch_terms(**Contrasted.joined(contrasted).by_name)
    for each in outputs:
        for name, term in method.sample_terms(each).items():
            terms[name] = terms.get(name, 0) + term / PIECES
    expected = list(torch.autograd.grad(sum_of(method.weighted(terms)), engine.parameters))
    if compiled:
        method.compile()
    accumulate_gradients(engine, parts, exact=True, seed=SEED, measure_norms=False)
    found = [each.grad for each in engine.parameters if each.grad is not None]
    assert relative_error(found, expected) < 1e-4


@on_each_device
def test_exact_accumulation_is_the_whole_batch_with_dropout_too(device: torch.device) -> None:
    check_exact_accumulation(device, compiled=False)


@slow_on_a_cpu
def test_exact_accumulation_is_the_whole_batch_when_compiled(device: torch.device) -> None:
    check_exact_accumulation(device, compiled=True)


@on_each_device
@pytest.mark.parametrize("chunk_size", [None, 7])
def test_the_blockwise_loss_has_the_gradient_of_a_plain_one(
    device: torch.device, chunk_size: int | None
) -> None:
    rows = embeddings(24, 16, 0, device)
    plain = loss_forms(chunk_size=7)["open_clip"](*rows)
    ours = global_contrastive_loss(
        *rows, temperature=TEMPERATURE, image_to_report_weight=0.5, chunk_size=chunk_size
    )
    assert ours.item() == pytest.approx(plain.item(), rel=1e-5)
    found, expected = (list(torch.autograd.grad(each, rows)) for each in (ours, plain))
    assert relative_error(found, expected) < 1e-4


@on_each_device
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("method", "name"), [("limitr", "authors"), ("gloria", "gloria")])
def test_pair_losses_have_the_gradients_of_the_authors_loops(
    device: torch.device, method: str, name: str, precision: pairs.Precision
) -> None:
    sizes = {"method": method, "batch_size": 6, "regions": 9, "words": 7, "dim": 32}
    config = pairs.Settings.model_validate(sizes)
    form = pairs.Form(name, precision)  # type: ignore[arg-type]
    (loss, *found), (expected_loss, *expected) = (
        pairs.pair_step(each, config, 6, device=device.type)()  # type: ignore[arg-type]
        for each in (form, pairs.Form("loop"))
    )
    tolerance = 1e-4 if precision == "float32" else pairs.TARGET_GRADIENT_ERROR
    assert loss.item() == pytest.approx(expected_loss.item(), rel=tolerance)
    # Of regions and words.
    assert relative_error(found[:2], expected[:2]) < tolerance
