"""LoVT and LIMITR on a cluster that nobody has to own: seconds, bytes and limits from its rates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from data_shards.profiles import Config, validate
from distributed_pretrain.benchmark.scaling_model import (
    FLOAT32_BYTES,
    Collective,
    Exchange,
    Link,
    StepTime,
    global_loss_flops,
    predict_step,
    step_messages,
)
from distributed_pretrain.methods.lovt.method import Lovt, LovtConfig, build_lovt
from distributed_pretrain.training.flops import StepFlops, full_batch, training_flops

ZeroStage = Literal[0, 1, 2, 3]

BERT_BASE_VOCABULARY = 28_996
LOVT_IMAGE_SIZE_PX = 224
LIMITR_IMAGE_SIZE_PX, LIMITR_TOKENS, LIMITR_DIM = 299, 97, 768
LIMITR_REGIONS, LIMITR_LOCAL_CHANNELS = 19 * 19, 1024
# Forward, forward again in backward (pairs are not stored), and the gradients of both sides.
LIMITR_PRODUCTS = 4


class ClusterConfig(Config):
    """Nodes of eight A100 (NVLink), one 200 Gb/s link a node: assumptions, not measurements.

    `pairs_per_second` is the reference figure for ResNet-50 and BERT-base in bf16 on one GPU at
    `reference_tokens`; everything else computes at the rate that it implies, but for the global
    loss, in float32 outside the tensor cores (60% of 19.5 TFLOP/s). Links reach about 80% of
    their rate. `images_per_second_per_core` is what one core of the loader reads and decodes.
    """

    gpus_per_node: PositiveInt = 8
    pairs_per_second: PositiveFloat = 1380.0
    reference_tokens: PositiveInt = 77
    tokens: PositiveInt = 77
    float32_teraflops: PositiveFloat = 11.7
    node_gigabytes_per_second: PositiveFloat = 230.0
    network_gigabytes_per_second: PositiveFloat = 20.0
    node_latency_microseconds: PositiveFloat = 3.0
    network_latency_microseconds: PositiveFloat = 5.0
    cores_per_gpu: PositiveInt = 16
    images_per_second_per_core: PositiveFloat = 900.0
    image_kilobytes: PositiveFloat = 25.0
    storage_gigabytes_per_second: PositiveFloat = 10.0

    def links(self, ranks: int) -> dict[Collective, Link]:
        """Inside a node NVLink; across nodes a ring passes each node's one link."""
        inside = ranks <= self.gpus_per_node
        latency = self.node_latency_microseconds if inside else self.network_latency_microseconds
        rate = self.node_gigabytes_per_second if inside else self.network_gigabytes_per_second
        link = Link(1e-6 * latency, 1e9 * rate, trees=True)
        return {"all_reduce": link, "all_gather": link, "reduce_scatter": link}


@dataclass(frozen=True)
class Workload:
    """A method at the paper's sizes.

    `flops_per_pair` are those of a training step without what compares pairs with each other.
    `similarity_flops` are those of one image with one report of another pair, forward and
    backward, and `global_negatives` says whether a rank compares its images with the reports of
    all ranks or only its own. `activation_bytes` are kept for backward, of a pair, in float32;
    None where nobody counted.
    """

    name: str
    flops_per_pair: float
    exchange: Exchange
    parameters: int
    similarity_flops: float = 0.0
    global_negatives: bool = False
    activation_bytes: float | None = None


@dataclass(frozen=True)
class Cluster:
    """A cluster, and the operations a second that its reference throughput is."""

    config: ClusterConfig
    flops_per_second: float


def paper_setting(cluster: ClusterConfig) -> tuple[Cluster, tuple[Workload, Workload, Workload]]:
    """The cluster; LoVT, and LIMITR with the negatives of its rank and with those of all ranks.

    Operations and parameters are counted on the encoders themselves. LIMITR is the single-view
    paper variant with its linear maps folded and all of BERT trained, its heads by formula.
    """
    config = validate(
        LovtConfig,
        {
            "image_encoder": {"weights": None},
            "report_encoder": {
                "name": "new",
                "hidden_size": 768,
                "layers": 12,
                "heads": 12,
                "intermediate_size": 3072,
                "frozen_layers": 6,
            },
        },
        where="benchmark scaling",
    )
    method = build_lovt(config, vocabulary_size=BERT_BASE_VOCABULARY)
    trunk_norms = tuple(
        layer.num_features
        for layer in method.image_encoder.modules()
        if isinstance(layer, nn.BatchNorm2d)
    )
    step_flops = StepFlops.of(method, image_size_px=LOVT_IMAGE_SIZE_PX)
    lovt = Workload(
        name="LoVT",
        flops_per_pair=_row_flops(step_flops, cluster.tokens),
        exchange=Exchange(
            embedding_dim=config.embedding_dim,
            trained_parameters=_count(method, trained=True),
            head_norms=(config.projection_hidden_dim,) * 4,
            trunk_norms=trunk_norms,
        ),
        parameters=_count(method),
        activation_bytes=_activation_bytes(method, cluster.tokens),
    )
    images = torch.zeros(2, 1, LIMITR_IMAGE_SIZE_PX, LIMITR_IMAGE_SIZE_PX)
    trunk_flops = training_flops(lambda: method.image_encoder.train()(images).sum()) / 2
    trunk_channels, d = method.image_encoder.channels, LIMITR_DIM
    layer = 24 * LIMITR_TOKENS * d**2 + 4 * LIMITR_TOKENS**2 * d
    heads = 2 * (trunk_channels * d + LIMITR_REGIONS * LIMITR_LOCAL_CHANNELS * d)
    parameters = (
        _count(method.image_encoder)
        + _count(method.report_encoder)
        + (trunk_channels + LIMITR_LOCAL_CHANNELS + 1) * d
    )
    limitr = Workload(
        name="LIMITR, local",
        flops_per_pair=trunk_flops + 3 * (12 * layer + heads),
        exchange=Exchange(d, parameters, head_norms=(), trunk_norms=trunk_norms),
        parameters=parameters,
        similarity_flops=LIMITR_PRODUCTS
        * pair_similarity_flops(LIMITR_REGIONS, LIMITR_TOKENS, d, folded=True),
    )
    gathered = replace(limitr.exchange, gathered_dim=LIMITR_TOKENS * d)
    everywhere = replace(limitr, name="LIMITR, global", exchange=gathered, global_negatives=True)
    reference = _row_flops(step_flops, cluster.reference_tokens)
    return Cluster(cluster, cluster.pairs_per_second * reference), (lovt, limitr, everywhere)


def pair_similarity_flops(regions: int, words: int, dim: int, *, folded: bool) -> float:
    """Forward operations of LIMITR's local similarity of one image with one report.

    The products of regions and words, and both attended sides: 3 times 2 R W d. The linear maps
    cost 2 d² for each region and word as the authors write them, and next to nothing when they
    are folded into the queries of the `paper` variant.
    """
    attention = 6.0 * regions * words * dim
    return attention if folded else attention + 2.0 * (regions + words) * dim**2


def compute_seconds(cluster: Cluster, workload: Workload, *, rows: int, ranks: int) -> float:
    """What a rank computes in a step, its comparisons with the other ranks' rows included."""
    columns = rows * ranks if workload.global_negatives else rows
    flops = rows * workload.flops_per_pair + rows * columns * workload.similarity_flops
    loss = loss_seconds(cluster, workload, rows=rows, ranks=ranks)
    return flops / cluster.flops_per_second + loss


def loss_seconds(cluster: Cluster, workload: Workload, *, rows: int, ranks: int) -> float:
    """The global loss's products in float32."""
    flops = global_loss_flops(rows=rows, ranks=ranks, embedding_dim=workload.exchange.embedding_dim)
    return flops / (1e12 * cluster.config.float32_teraflops)


def predict_on_cluster(cluster: Cluster, workload: Workload, *, rows: int, ranks: int) -> StepTime:
    """A step with `rows` pairs a rank; the loader keeps up."""
    return predict_step(
        compute_seconds(cluster, workload, rows=rows, ranks=ranks),
        step_messages(workload.exchange, rows=rows, ranks=ranks),
        ranks=ranks,
        links=cluster.config.links(ranks),
    )


def negatives_share(cluster: Cluster, workload: Workload, *, rows: int, ranks: int) -> float:
    """The share of a step that the other ranks' negatives cost: their gather and comparisons."""
    gathers = [
        message
        for message in step_messages(workload.exchange, rows=rows, ranks=ranks)
        if message.collective != "all_reduce"
    ]
    links = cluster.config.links(ranks)
    waiting = predict_step(0.0, gathers, ranks=ranks, links=links).seconds
    compared = compute_seconds(cluster, workload, rows=rows, ranks=ranks) - compute_seconds(
        cluster, workload, rows=rows, ranks=1
    )
    step = predict_on_cluster(cluster, workload, rows=rows, ranks=ranks)
    return (waiting + compared) / step.seconds


def is_reduction_hidden(cluster: Cluster, workload: Workload, *, rows: int, ranks: int) -> bool:
    """Whether the gradients' all-reduce ends before the backward pass beside it."""
    messages = [m for m in step_messages(workload.exchange, rows=rows, ranks=ranks) if m.overlaps]
    step = predict_on_cluster(cluster, workload, rows=rows, ranks=ranks)
    reduction = predict_step(
        step.compute_seconds, messages, ranks=ranks, links=cluster.config.links(ranks)
    )
    return reduction.exposed_seconds == 0


def state_bytes(workload: Workload, *, ranks: int, stage: ZeroStage) -> float:
    """Weights, gradients and Adam's two moments of one rank, float32; ZeRO shares from its stage.

    Stage 1 shares the moments, 2 the gradients too, 3 the weights too. Buffers on the way come
    on top.
    """
    trained = FLOAT32_BYTES * workload.exchange.trained_parameters
    weights = FLOAT32_BYTES * workload.parameters
    moments = 2 * trained / (ranks if stage >= 1 else 1)
    gradients = trained / (ranks if stage >= 2 else 1)
    return weights / (ranks if stage >= 3 else 1) + gradients + moments


def _row_flops(flops: StepFlops, tokens: int) -> float:
    return replace(flops, per_pair=(0.0, 0.0)).per_step(rows=1, tokens=tokens)


def _activation_bytes(method: Lovt, tokens: int) -> float:
    """Bytes of a pair that autograd keeps from forward to backward, parameters left out."""
    rows = 2
    weights = {p.untyped_storage().data_ptr() for p in method.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    batch = full_batch(method, rows=rows, image_size_px=LOVT_IMAGE_SIZE_PX, tokens=tokens)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        method.loss(method(batch))
    return sum(each.untyped_storage().nbytes() for each in kept.values()) / rows


def _count(module: nn.Module, *, trained: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)
