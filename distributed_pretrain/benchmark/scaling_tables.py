"""The tables and the picture of docs/scaling.md, from the assumptions of a `ClusterConfig`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from distributed_pretrain.benchmark.scaling_cluster import (
    LIMITR_DIM,
    LIMITR_REGIONS,
    LIMITR_TOKENS,
    Cluster,
    ClusterConfig,
    Workload,
    ZeroStage,
    is_reduction_hidden,
    loss_seconds,
    negatives_share,
    pair_similarity_flops,
    predict_on_cluster,
    state_bytes,
)
from distributed_pretrain.benchmark.scaling_model import (
    FLOAT32_BYTES,
    global_loss_flops,
    predict_step,
    step_messages,
)

RANKS = (1, 8, 16, 64, 128, 512)
MANY_RANKS = tuple(2**power for power in range(1, 21))
ROWS_CANDIDATES = range(1, 4097)
STRONG_BATCH = 4096
CHUNK_ROWS = 64
ZERO_STAGES: tuple[ZeroStage, ...] = (0, 1, 2, 3)
LIMIT_SHARES = (0.05, 0.10)


def cluster_report(cluster: Cluster, workloads: Sequence[Workload]) -> str:
    """All tables, for LoVT and the variants of LIMITR in this order."""
    return "\n\n".join(
        [
            _flops_table(cluster, workloads),
            _bytes_table(cluster, workloads),
            _efficiency_table(cluster, workloads),
            _limits(cluster, workloads),
            _memory_table(workloads[0]),
            _loader_table(cluster.config),
        ]
    )


def weak_efficiency(cluster: Cluster, workload: Workload, *, rows: int, ranks: int) -> float:
    """Throughput of a rank among `ranks` over that of one alone, both with `rows` pairs a rank."""
    alone = predict_on_cluster(cluster, workload, rows=rows, ranks=1)
    return alone.seconds / predict_on_cluster(cluster, workload, rows=rows, ranks=ranks).seconds


def draw_efficiency(cluster: Cluster, workloads: Sequence[Workload], path: Path) -> None:
    """Write a picture of weak-scaling efficiency against ranks."""
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    ranks = (1, *MANY_RANKS[:10])
    for workload, rows in _cases(workloads):
        efficiency = [100 * weak_efficiency(cluster, workload, rows=rows, ranks=n) for n in ranks]
        axes.plot(
            ranks, efficiency, marker="o", markersize=3, label=f"{workload.name}, {rows} a rank"
        )
    axes.axvline(cluster.config.gpus_per_node, color="grey", linewidth=0.8, linestyle=":")
    axes.annotate(
        "one node", (cluster.config.gpus_per_node, 2), rotation=90, ha="right", fontsize=8
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [str(n) for n in ranks])
    axes.set(xlabel="ranks", ylabel="efficiency / %", ylim=(0, 105))
    axes.set_title("Weak scaling, predicted (not measured)", fontsize=10)
    axes.grid(visible=True, linewidth=0.3)
    axes.legend(fontsize=8, loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _cases(workloads: Sequence[Workload]) -> list[tuple[Workload, int]]:
    """Batches a rank: LIMITR's of the paper, and for LoVT a larger one besides."""
    return [(workloads[0], 256), *((workload, 48) for workload in workloads)]


def _flops_table(cluster: Cluster, workloads: Sequence[Workload]) -> str:
    lines = [
        f"Operations of a training step, {cluster.config.tokens} tokens (LIMITR {LIMITR_TOKENS})"
    ]
    for workload in workloads:
        lines.append(
            f"  {workload.name:15s} {workload.flops_per_pair / 1e9:7.1f} GFLOP a pair, "
            f"{workload.similarity_flops / 1e9:5.2f} GFLOP an image and report compared; "
            f"{workload.parameters / 1e6:5.1f} M parameters, "
            f"{workload.exchange.trained_parameters / 1e6:5.1f} M trained"
        )
    folded, whole = (
        pair_similarity_flops(LIMITR_REGIONS, LIMITR_TOKENS, LIMITR_DIM, folded=folded)
        for folded in (True, False)
    )
    lines.append(
        f"  LIMITR similarity, forward: {folded / 1e9:.2f} GFLOP folded, "
        f"{whole / 1e9:.2f} as the authors write it"
    )
    for batch in (4096, 32_768):
        rows = 256
        flops = global_loss_flops(rows=rows, ranks=batch // rows, embedding_dim=512)
        lines.append(
            f"  global loss of LoVT, B = {batch}, {rows} a rank: {flops / 1e9:7.1f} GFLOP a rank, "
            f"{1e3 * loss_seconds(cluster, workloads[0], rows=rows, ranks=batch // rows):5.2f} ms"
        )
    return "\n".join(lines)


def _bytes_table(cluster: Cluster, workloads: Sequence[Workload]) -> str:
    lines = ["What a rank sends and receives, 48 pairs a rank: MB of messages, ms alone"]
    lines.append("                  ranks   gradients        gathers           norms and counts")
    for workload in workloads:
        for ranks in (8, 64, 512):
            messages = step_messages(workload.exchange, rows=48, ranks=ranks)
            gradients = [m for m in messages if m.overlaps]
            gathers = [m for m in messages if m.collective != "all_reduce"]
            small = [m for m in messages if m.collective == "all_reduce" and not m.overlaps]
            cells = []
            for part in (gradients, gathers, small):
                size = sum(m.count * m.size_bytes for m in part) / 1e6
                links = cluster.config.links(ranks)
                milliseconds = 1e3 * predict_step(0.0, part, ranks=ranks, links=links).seconds
                cells.append(f"{size:8.1f} {milliseconds:7.2f}")
            lines.append(f"  {workload.name:15s} {ranks:5d} " + "  ".join(cells))
    return "\n".join(lines)


def _efficiency_table(cluster: Cluster, workloads: Sequence[Workload]) -> str:
    lines = ["Weak scaling: efficiency (pairs/s in all), predicted"]
    lines.append("  ranks" + " ".join(f"{n:18d}" for n in RANKS))
    for workload, rows in _cases(workloads):
        cells = []
        for ranks in RANKS:
            step = predict_on_cluster(cluster, workload, rows=rows, ranks=ranks)
            share = weak_efficiency(cluster, workload, rows=rows, ranks=ranks)
            cells.append(f"{share:7.1%} ({rows * ranks / step.seconds:8.0f})")
        lines.append(f"  {workload.name}, {rows} a rank\n       " + " ".join(cells))
    lines.append(f"Strong scaling of LoVT, B = {STRONG_BATCH}: pairs/s over ranks times one rank's")
    cells = []
    for ranks in RANKS:
        rows = STRONG_BATCH // ranks
        step = predict_on_cluster(cluster, workloads[0], rows=rows, ranks=ranks)
        alone = predict_on_cluster(cluster, workloads[0], rows=STRONG_BATCH, ranks=1).seconds
        cells.append(f"{alone / ranks / step.seconds:7.1%} ({STRONG_BATCH / step.seconds:8.0f})")
    lines.append("       " + " ".join(cells))
    return "\n".join(lines)


def _limits(cluster: Cluster, workloads: Sequence[Workload]) -> str:
    lines = ["Limits"]
    for workload, rows in _cases(workloads):
        shares = {n: negatives_share(cluster, workload, rows=rows, ranks=n) for n in MANY_RANKS}
        for limit in LIMIT_SHARES:
            first = next((n for n, share in shares.items() if share > limit), None)
            where = "nowhere" if first is None else f"from N = {first} (B = {first * rows})"
            lines.append(
                f"  negatives of other ranks cost over {limit:3.0%} of a step: "
                f"{workload.name}, {rows} a rank: {where}"
            )
    for workload in workloads[:2]:
        for ranks in (8, 16, 512):
            hidden = next(
                (
                    b
                    for b in ROWS_CANDIDATES
                    if is_reduction_hidden(cluster, workload, rows=b, ranks=ranks)
                ),
                None,
            )
            lines.append(
                f"  the all-reduce hides behind backward: {workload.name}, N = {ranks}: "
                f"from {hidden} pairs a rank"
            )
    return "\n".join(lines)


def _memory_table(lovt: Workload) -> str:
    rows, ranks = 256, 128
    batch, embedding_dim = rows * ranks, lovt.exchange.embedding_dim
    lines = [f"Memory of a rank, LoVT, {rows} a rank, N = {ranks} (B = {batch}), GB"]
    for stage in ZERO_STAGES:
        size = state_bytes(lovt, ranks=ranks, stage=stage) / 1e9
        lines.append(f"  weights, gradients and Adam, ZeRO {stage}: {size:5.2f}")
    gathered = 2 * FLOAT32_BYTES * batch * embedding_dim / 1e9
    lines.append(f"  gathered embeddings, and as much for their gradients: {gathered:5.3f} each")
    if lovt.activation_bytes is not None:
        lines.append(f"  activations, float32: {rows * lovt.activation_bytes / 1e9:.1f}")
    lines.append(
        f"  logits of both directions: {2 * FLOAT32_BYTES * rows * batch / 1e9:5.3f} plain, "
        f"{2 * FLOAT32_BYTES * CHUNK_ROWS * batch / 1e9:5.3f} in chunks of {CHUNK_ROWS} "
        f"(whole matrix on one GPU: {FLOAT32_BYTES * batch**2 / 1e9:.1f})"
    )
    return "\n".join(lines)


def _loader_table(cluster: ClusterConfig) -> str:
    per_gpu = cluster.pairs_per_second
    cores = math.ceil(per_gpu / cluster.images_per_second_per_core)
    megabytes = per_gpu * cluster.image_kilobytes / 1e3
    storage_ranks = math.floor(1e3 * cluster.storage_gigabytes_per_second / megabytes)
    fastest = cluster.cores_per_gpu * cluster.images_per_second_per_core
    return "\n".join(
        [
            "Loader",
            f"  {per_gpu:.0f} pairs/s a GPU: {cores} cores a GPU decode them, "
            f"{megabytes:.1f} MB/s a GPU from the shards",
            f"  {cluster.cores_per_gpu} cores a GPU are the limit from {fastest:.0f} pairs/s a GPU "
            f"({fastest / per_gpu:.1f} times today's step)",
            f"  {cluster.storage_gigabytes_per_second:.0f} GB/s of shared storage are the limit "
            f"from N = {storage_ranks} (page cache and local disks put it off)",
        ]
    )
