from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from data_shards.profiles import validate
from distributed_pretrain.benchmark.harness import in_fresh_processes, joined
from distributed_pretrain.benchmark.scaling import (
    Collective,
    Link,
    Message,
    Settings,
    collective_seconds,
    core_share_slowdown,
    fit_link,
    predict_step,
    small_lovt,
    step_messages,
    training_step,
    waiting_seconds,
)
from distributed_pretrain.benchmark.step import noise_batch, prepare
from distributed_pretrain.pretrain.full_batch import full_batch
from distributed_pretrain.training.flops import StepFlops

# One worker: processes are started from it.
pytestmark = pytest.mark.xdist_group("benchmark")

LINK = Link(latency_seconds=1e-3, bytes_per_second=1e6)
LINKS: dict[Collective, Link] = {"all_reduce": LINK, "all_gather": LINK, "reduce_scatter": LINK}
TINY = {
    "batch": 6,
    "image_size_px": 32,
    "width": 0.125,
    "hidden_size": 32,
    "embedding_dim": 16,
    "projection_hidden_dim": 32,
}


def tiny_config() -> Settings:
    return validate(Settings, TINY, where="test")


def test_a_ring_sends_all_but_its_own_share_once_and_a_sum_twice() -> None:
    gather = collective_seconds("all_gather", 4e6, ranks=4, link=LINK)
    assert gather == pytest.approx(3 * (1e-3 + 1.0))
    assert collective_seconds("reduce_scatter", 4e6, ranks=4, link=LINK) == gather
    assert collective_seconds("all_reduce", 4e6, ranks=4, link=LINK) == pytest.approx(2 * gather)
    assert collective_seconds("all_reduce", 4e6, ranks=1, link=LINK) == 0


def test_a_fit_finds_the_link_that_made_the_times() -> None:
    sizes = [10**2, 10**4, 10**6, 10**7]
    seconds = {size: collective_seconds("all_reduce", size, ranks=2, link=LINK) for size in sizes}
    fitted = fit_link("all_reduce", seconds, ranks=2)
    assert fitted.latency_seconds == pytest.approx(1e-3)
    assert fitted.bytes_per_second == pytest.approx(1e6)


def test_noise_never_gives_a_negative_latency() -> None:
    assert fit_link("all_gather", {10**5: 0.01, 10**6: 0.2}, ranks=2).latency_seconds == 0


def test_only_what_outlasts_the_backward_pass_of_an_overlapping_message_is_waited_for() -> None:
    message = Message("all_reduce", 2e6, overlaps=True)  # 2.002 s among two
    assert waiting_seconds(6.0, [message], ranks=2, links=LINKS) == 0
    exposed = waiting_seconds(1.5, [message], ranks=2, links=LINKS)
    assert exposed == pytest.approx(2.002 - 1.0)
    without = waiting_seconds(1.5, [message], ranks=2, links=LINKS, overlap_share=0)
    assert without == pytest.approx(2.002)


def test_other_messages_are_waited_for_as_often_as_they_are_sent() -> None:
    message = Message("all_gather", 2e6, times=3)
    waiting = waiting_seconds(6.0, [message], ranks=2, links=LINKS, crowding=2.0)
    assert waiting == pytest.approx(2 * 3 * 1.001)


def test_ranks_slow_down_only_when_they_are_more_than_the_cores() -> None:
    assert [core_share_slowdown(ranks, 2) for ranks in (1, 2, 4)] == [1, 1, 2]


def test_one_process_sends_nothing_and_computes_alone() -> None:
    method = small_lovt(tiny_config())
    assert step_messages(method, rows=8, ranks=1) == []
    assert predict_step(method, 3.0, 2.0, LINKS, rows=8, ranks=1, cores=2) == (3.0, 0)


def test_ranks_beside_others_and_on_shared_cores_compute_for_longer() -> None:
    method = small_lovt(tiny_config())
    computing, waiting = zip(
        *(predict_step(method, 3.0, 1.5, LINKS, rows=8, ranks=n, cores=2) for n in (2, 4)),
        strict=True,
    )
    assert computing == (4.5, 9.0)
    assert 0 < 2 * waiting[0] < waiting[1]


def test_messages_grow_with_the_batch_only_where_rows_are_gathered() -> None:
    method = small_lovt(tiny_config())

    def bytes_of(rows: int) -> dict[str, float]:
        sent: dict[str, float] = {}
        for message in step_messages(method, rows=rows, ranks=4):
            name = message.collective + (" overlapping" if message.overlaps else "")
            sent[name] = sent.get(name, 0) + message.times * message.size_bytes
        return sent

    small, large = bytes_of(8), bytes_of(16)
    assert small["reduce_scatter"] == 2 * 32 * 16 * 4
    assert large["reduce_scatter"] == 2 * small["reduce_scatter"]
    parameters = sum(p.numel() for p in method.parameters() if p.requires_grad)
    assert small["all_reduce overlapping"] == large["all_reduce overlapping"] == 4 * parameters
    norms = 2 * 8 * 4 * (2 * 32 + 1)
    assert small["all_reduce"] == large["all_reduce"] == norms + 3 * 4


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


def record_step(config: Settings) -> tuple[list[tuple[str, int]], StepFlops]:
    """The collectives of a step, and the operations of this rank."""
    with joined() as engine:
        prepare(engine, small_lovt(config))
        batch = noise_batch(config, engine.device)
        # DDP's first two steps also agree on its buckets.
        for _ in range(2):
            training_step(engine, batch)
        with CollectiveRecorder() as recorder:
            training_step(engine, batch)

        def probe(*, rows: int, tokens: int, tokens_a_sentence: int) -> Any:
            return full_batch(
                engine.device,
                rows=rows,
                image_size_px=config.image_size_px,
                tokens=tokens,
                tokens_a_sentence=tokens_a_sentence,
            )

        return recorder.seen, StepFlops.of(engine.objective, probe, max_tokens=None)


@pytest.fixture(scope="module")
def recorded() -> list[tuple[list[tuple[str, int]], StepFlops]]:
    return in_fresh_processes(record_step, [(tiny_config(),)] * 2, as_ranks=True)


@pytest.mark.slow
def test_a_real_step_sends_exactly_the_messages_of_the_model(
    recorded: list[tuple[list[tuple[str, int]], StepFlops]],
) -> None:
    config = tiny_config()
    messages = step_messages(small_lovt(config), rows=config.batch, ranks=2)
    expected: Counter[tuple[str, float]] = Counter()
    for message in messages:
        if not message.overlaps:
            expected[message.collective, message.size_bytes] += message.times
    gradients = sum(message.size_bytes for message in messages if message.overlaps)
    for seen, _ in recorded:
        counted: Counter[tuple[str, float]] = Counter(seen)
        buckets = counted - expected
        assert not expected - counted
        assert sum(size * count for (_, size), count in buckets.items()) == gradients


def test_several_ranks_count_the_rows_they_gather(
    recorded: list[tuple[list[tuple[str, int]], StepFlops]],
) -> None:
    # Two b x B blocks, each a product forward and two gradients: 12 b B D.
    per_pair = 12 * 2 * tiny_config().embedding_dim
    for _, flops in recorded:
        assert flops.per_pair == pytest.approx([per_pair, 0], abs=1e-3)
