from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from data_shards.errors import InputError
from distributed_pretrain.benchmark.scaling import run
from distributed_pretrain.benchmark.scaling_cluster import (
    Cluster,
    ClusterConfig,
    Workload,
    compute_seconds,
    is_reduction_hidden,
    negatives_share,
    pair_similarity_flops,
    predict_on_cluster,
    state_bytes,
)
from distributed_pretrain.benchmark.scaling_model import (
    Collective,
    Exchange,
    Link,
    Message,
    collective_seconds,
    core_share_slowdown,
    fit_link,
    global_loss_flops,
    predict_step,
    step_messages,
)
from distributed_pretrain.benchmark.scaling_runs import (
    build_small_lovt,
    exchange_of,
    free_port,
    join_ranks,
    random_batch,
    start_together,
    training_step,
)
from distributed_pretrain.benchmark.scaling_tables import cluster_report, weak_efficiency
from distributed_pretrain.training.flops import StepFlops

# One worker: processes are started from it.
pytestmark = pytest.mark.xdist_group("scaling")

LINK = Link(latency_seconds=1e-3, bytes_per_second=1e6)
LINKS: dict[Collective, Link] = {"all_reduce": LINK, "all_gather": LINK, "reduce_scatter": LINK}


def test_a_ring_sends_all_but_its_own_share_once_and_a_sum_twice() -> None:
    gather = collective_seconds("all_gather", 4e6, ranks=4, link=LINK)
    assert gather == pytest.approx(3 * (1e-3 + 1.0))
    assert collective_seconds("reduce_scatter", 4e6, ranks=4, link=LINK) == gather
    assert collective_seconds("all_reduce", 4e6, ranks=4, link=LINK) == pytest.approx(2 * gather)
    assert collective_seconds("all_reduce", 4e6, ranks=1, link=LINK) == 0


def test_trees_shorten_small_sums_of_many_ranks_and_no_large_ones() -> None:
    trees = Link(LINK.latency_seconds, LINK.bytes_per_second, trees=True)
    small = collective_seconds("all_reduce", 8, ranks=64, link=trees)
    assert small == pytest.approx(2 * 6 * (1e-3 + 8e-6))
    assert small < collective_seconds("all_reduce", 8, ranks=64, link=LINK)
    for collective in ("all_reduce", "all_gather"):
        large = collective_seconds(collective, 1e9, ranks=64, link=trees)
        assert large == collective_seconds(collective, 1e9, ranks=64, link=LINK)


def test_a_fit_finds_the_link_that_made_the_times() -> None:
    sizes = [1e2, 1e4, 1e6, 1e7]
    seconds = [collective_seconds("all_reduce", size, ranks=2, link=LINK) for size in sizes]
    fitted = fit_link("all_reduce", sizes, seconds, ranks=2)
    assert fitted.latency_seconds == pytest.approx(1e-3)
    assert fitted.bytes_per_second == pytest.approx(1e6)


def test_noise_never_gives_a_negative_latency() -> None:
    assert fit_link("all_gather", [1e5, 1e6], [0.01, 0.2], ranks=2).latency_seconds == 0


def test_only_what_outlasts_the_backward_pass_of_an_overlapping_message_is_waited_for() -> None:
    message = Message("all_reduce", 2e6, overlaps=True)  # 2.002 s among two
    hidden = predict_step(6.0, [message], ranks=2, links=LINKS)
    assert hidden.seconds == 6.0
    assert hidden.hidden_seconds == pytest.approx(2.002)
    exposed = predict_step(1.5, [message], ranks=2, links=LINKS)
    assert exposed.seconds == pytest.approx(1.5 + 2.002 - 1.0)
    without = predict_step(1.5, [message], ranks=2, links=LINKS, overlap_share=0)
    assert without.seconds == pytest.approx(1.5 + 2.002)


def test_other_messages_are_waited_for_as_often_as_they_are_sent() -> None:
    message = Message("all_gather", 2e6, count=3)
    step = predict_step(6.0, [message], ranks=2, links=LINKS, crowding=2.0)
    assert step.exposed_seconds == pytest.approx(2 * 3 * 1.001)


def test_ranks_slow_down_only_when_they_are_more_than_the_cores() -> None:
    assert [core_share_slowdown(ranks, 2) for ranks in (1, 2, 4)] == [1, 1, 2]


def test_one_process_sends_nothing() -> None:
    exchange = Exchange(embedding_dim=512, trained_parameters=10, head_norms=(2048,))
    assert step_messages(exchange, rows=8, ranks=1) == []


def test_messages_grow_with_the_batch_only_where_rows_are_gathered() -> None:
    exchange = Exchange(512, 1000, head_norms=(2048,) * 4, trunk_norms=(64,), gathered_dim=100)

    def bytes_of(rows: int, ranks: int) -> dict[str, float]:
        sent: dict[str, float] = {}
        for message in step_messages(exchange, rows=rows, ranks=ranks):
            name = message.collective + (" overlapping" if message.overlaps else "")
            sent[name] = sent.get(name, 0) + message.count * message.size_bytes
        return sent

    small, large = bytes_of(8, 4), bytes_of(16, 4)
    assert small["reduce_scatter"] == 2 * 32 * 512 * 4 + 32 * 100 * 4
    assert large["reduce_scatter"] == 2 * small["reduce_scatter"]
    assert small["all_reduce overlapping"] == large["all_reduce overlapping"] == 4000
    norms = 2 * 8 * (4 * (2 * 2048 + 1) + 2 * 64 + 1)
    assert small["all_reduce"] == large["all_reduce"] == norms + 3 * 4


def test_the_global_loss_costs_what_a_step_counts_in_one_process() -> None:
    # 6 B² D: see test_flops.py for the count of the real loss.
    assert global_loss_flops(rows=32, ranks=1, embedding_dim=24) == 32**2 * 6 * 24


def test_several_ranks_compare_in_two_blocks_and_chunks_once_more() -> None:
    several = global_loss_flops(rows=8, ranks=4, embedding_dim=24)
    assert several == 2 * 3 * 2 * 8 * 32 * 24
    assert global_loss_flops(rows=8, ranks=4, embedding_dim=24, chunked=True) == several * 4 / 3


# A made-up cluster and methods in round numbers.
CLUSTER = Cluster(ClusterConfig(pairs_per_second=1000), flops_per_second=1e12)
EXCHANGE = Exchange(512, 100_000_000, head_norms=(2048,) * 4, trunk_norms=(64,) * 53)
LOVT = Workload("LoVT", 1e9, EXCHANGE, parameters=150_000_000)
LOCAL = Workload("LIMITR, local", 2e9, EXCHANGE, 150_000_000, similarity_flops=1e8)
GLOBAL = Workload(
    "LIMITR, global",
    2e9,
    Exchange(512, 100_000_000, (), gathered_dim=97 * 768),
    150_000_000,
    similarity_flops=1e8,
    global_negatives=True,
)


def test_limitr_pairs_cost_what_the_specification_says() -> None:
    assert pair_similarity_flops(361, 97, 768, folded=True) == pytest.approx(0.16e9, rel=0.02)
    linear = pair_similarity_flops(361, 97, 768, folded=False) - pair_similarity_flops(
        361, 97, 768, folded=True
    )
    assert linear == pytest.approx(0.54e9, rel=0.01)


def test_one_gpu_reaches_its_reference_and_loses_only_to_the_global_loss() -> None:
    step = predict_on_cluster(CLUSTER, LOVT, rows=100, ranks=1)
    assert step.exposed_seconds == 0
    loss = 6 * 100**2 * 512 / 11.7e12
    assert step.seconds == pytest.approx(100 / 1000 + loss)


def test_only_global_negatives_make_a_rank_compute_more_on_more_ranks() -> None:
    def growth(workload: Workload) -> float:
        one, many = (compute_seconds(CLUSTER, workload, rows=10, ranks=n) for n in (1, 9))
        return many - one

    assert growth(LOCAL) == pytest.approx(growth(LOVT))
    assert growth(GLOBAL) - growth(LOCAL) == pytest.approx(10 * 80 * 1e8 / 1e12)


def test_the_second_node_costs_more_than_the_first() -> None:
    efficiency = [weak_efficiency(CLUSTER, LOVT, rows=48, ranks=n) for n in (1, 2, 8, 9, 512)]
    assert efficiency[0] == 1
    assert efficiency == sorted(efficiency, reverse=True)
    assert efficiency[2] - efficiency[3] > efficiency[1] - efficiency[2]


def test_larger_batches_hide_the_reduction_and_more_ranks_raise_the_share_of_negatives() -> None:
    hidden = [is_reduction_hidden(CLUSTER, LOVT, rows=b, ranks=16) for b in (1, 16, 128, 1024)]
    assert hidden == sorted(hidden)
    assert set(hidden) == {True, False}
    shares = [negatives_share(CLUSTER, LOVT, rows=48, ranks=n) for n in (1, 8, 64, 512)]
    assert shares[0] == 0
    assert shares == sorted(shares)


def test_each_zero_stage_shares_one_more_kind_of_state() -> None:
    bytes_by_stage = [state_bytes(LOVT, ranks=100, stage=stage) for stage in (0, 1, 2, 3)]
    assert bytes_by_stage == pytest.approx(
        [
            4 * 150e6 + 4 * 100e6 + 8 * 100e6,
            4 * 150e6 + 4 * 100e6 + 8e6,
            4 * 150e6 + 4e6 + 8e6,
            6e6 + 4e6 + 8e6,
        ]
    )


def test_the_tables_say_which_limits_are_never_met() -> None:
    report = cluster_report(CLUSTER, (LOVT, LOCAL, GLOBAL))
    assert "LIMITR, global" in report
    assert "nan" not in report
    starved = Cluster(ClusterConfig(network_gigabytes_per_second=1e-6), flops_per_second=1e12)
    assert "from None pairs a rank" in cluster_report(starved, (LOVT, LOCAL, GLOBAL))


COLLECTIVE_OF_OPERATOR = {
    "allreduce_": "all_reduce",
    "_allgather_base_": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter",
}


class CollectiveRecorder(TorchDispatchMode):
    """Which collectives are called, and how large they are as `Message` counts."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.namespace == "c10d" and func.overloadpacket.__name__ != "barrier":
            name = COLLECTIVE_OF_OPERATOR[func.overloadpacket.__name__]
            sizes = [each.nbytes for each in tree_iter(args) if isinstance(each, Tensor)]
            self.seen.append((name, max(sizes)))
        return func(*args, **(kwargs or {}))


def record_step(rank: int, port: int, folder: Path) -> None:
    engine = join_ranks(rank, 2, port, "tiny")
    batch = random_batch("tiny", 6, seed=rank)
    # DDP's first two steps also agree on its buckets.
    for _ in range(2):
        training_step(engine, batch)
    with CollectiveRecorder() as recorder:
        training_step(engine, batch)
    flops = StepFlops.of(engine.method, image_size_px=32)
    figures = {"messages": recorder.seen, "flops_of_all_pairs": flops.per_pair}
    (folder / f"rank{rank}.json").write_text(json.dumps(figures))
    engine.close()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    start_together(record_step, (free_port(), folder), processes=2)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_a_real_step_sends_exactly_the_messages_of_the_model(
    recorded: list[dict[str, Any]],
) -> None:
    messages = step_messages(exchange_of(build_small_lovt("tiny")), rows=6, ranks=2)
    expected: Counter[tuple[str, float]] = Counter()
    for message in messages:
        if not message.overlaps:
            expected[message.collective, message.size_bytes] += message.count
    gradients = sum(message.size_bytes for message in messages if message.overlaps)
    for figures in recorded:
        seen = Counter(map(tuple, figures["messages"]))
        buckets = seen - expected
        assert not expected - seen
        assert sum(size * count for (_, size), count in buckets.items()) == gradients


def test_several_ranks_count_the_rows_they_gather(recorded: list[dict[str, Any]]) -> None:
    embedding_dim = build_small_lovt("tiny").config.embedding_dim
    for figures in recorded:
        per_pair = global_loss_flops(rows=1, ranks=2, embedding_dim=embedding_dim)
        assert figures["flops_of_all_pairs"] == pytest.approx([per_pair, 0], abs=1e-3)


def test_the_check_predicts_and_measures_every_number_of_ranks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    threads = torch.get_num_threads()
    run(["tables=false", "size=tiny", "batch=4", "ranks=[1,2]", "steps=1", "rounds=1"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert threads == torch.get_num_threads()
    for name in ("predicted_step_seconds", "measured_step_seconds"):
        assert figures[name].keys() == {"1", "2"}
        assert all(seconds > 0 for seconds in figures[name].values())
    assert figures["links"].keys() == {"all_reduce", "all_gather", "reduce_scatter"}


def test_a_batch_that_the_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(InputError, match=r"batch=10 cannot be shared by 4 ranks: use 8"):
        run(["mode=strong", "batch=10"])
