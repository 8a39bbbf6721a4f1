"""What the device does at best: large products, the encoders alone, copies to it."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from distributed_pretrain.benchmark.on_gpu.parts import Bench, Report, rate_of
from distributed_pretrain.models.image_encoder import make_image_encoder
from distributed_pretrain.models.report_encoder import new_report_encoder

IMAGE_BATCHES = (32, 128, 256)
REPORTS, TOKENS = 32, 128


def measure(bench: Bench, report: Report) -> None:
    """Rates, forward and backward in bf16 where it is not said otherwise."""
    device, tiny = bench.torch_device, bench.tiny
    seconds = bench.share(1 / 10)
    side = 64 if tiny else 8192
    factor = torch.randn(side, side, device=device).bfloat16()
    teraflops = rate_of(lambda: factor @ factor, 2 * side**3 / 1e12, seconds)
    report(matmul_bf16_teraflops=teraflops)
    pixels = torch.empty(2**20 if tiny else 2**28, dtype=torch.uint8, pin_memory=not tiny)
    there = torch.empty_like(pixels, device=device)
    copy = partial(there.copy_, pixels, non_blocking=True)
    report(pinned_copy_gb_per_second=rate_of(copy, pixels.numel() / 1e9, seconds))
    encoder = make_image_encoder("resnet18" if tiny else "resnet50", width=0.125 if tiny else 1.0)
    encoder = encoder.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    for rows in IMAGE_BATCHES:
        batch = 2 if tiny else rows
        shape = (batch, 1, 32 if tiny else 224, 32 if tiny else 224)
        images = torch.randn(shape, device=device)
        rate = rate_of(partial(_forward_and_backward, encoder, images), batch, seconds)
        report(**{f"resnet50_batch_{rows}_images_per_second": rate})
    hidden, layers, heads = (32, 1, 2) if tiny else (768, 12, 12)
    bert = new_report_encoder(
        1000,
        architecture="bert",
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        intermediate_size=4 * hidden,
    )
    bert.to(device).train()
    rows, tokens = (2, 8) if tiny else (REPORTS, TOKENS)
    ids = torch.ones(rows, tokens, dtype=torch.long, device=device)
    mask = torch.ones_like(ids, dtype=torch.bool)
    rate = rate_of(partial(_forward_and_backward, bert.embed_tokens, ids, mask), rows, seconds)
    report(bert_32_x_128_reports_per_second=rate)


def _forward_and_backward(encode: object, *inputs: Tensor) -> None:
    assert callable(encode)
    with torch.autocast(inputs[0].device.type, torch.bfloat16):
        encoded: Tensor = encode(*inputs)
    encoded.float().sum().backward()
