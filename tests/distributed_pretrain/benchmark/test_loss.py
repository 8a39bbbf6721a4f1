"""The command end to end at small sizes, and the memory that the forms promise. Never a time."""

from __future__ import annotations

import json
import sys
from itertools import product

import pytest
import torch

from data_shards.errors import InputError
from distributed_pretrain.benchmark.loss import (
    LossBenchmarkConfig,
    Row,
    loss_forms,
    run,
)
from distributed_pretrain.benchmark.memory import in_fresh_processes, peak_bytes_above_start
from distributed_pretrain.losses.contrastive import global_contrastive_loss

CPU = torch.device("cpu")
MEBIBYTE = 2**20
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from Linux's /proc")


def bytes_of_an_allocation(mebibytes: int) -> int:
    return peak_bytes_above_start(lambda: torch.ones(mebibytes, MEBIBYTE // 4), CPU)


def bytes_of_the_loss(batch: int, chunk_size: int | None) -> int:
    torch.set_num_threads(1)

    def forward_and_backward(rows: int) -> int:
        image, report = (torch.randn(rows, 16).requires_grad_() for _ in range(2))
        return peak_bytes_above_start(
            lambda: global_contrastive_loss(image, report, chunk_size=chunk_size).backward(), CPU
        )

    forward_and_backward(8)
    return forward_and_backward(batch)


def fail(message: str) -> None:
    raise ValueError(message)


@on_linux
def test_the_peak_is_what_was_held_at_once() -> None:
    (small,), (large,) = (in_fresh_processes(bytes_of_an_allocation, [(m,)]) for m in (64, 256))
    assert small == pytest.approx(64 * MEBIBYTE, rel=0.1)
    assert large == pytest.approx(256 * MEBIBYTE, rel=0.1)


@on_linux
def test_chunks_take_a_small_part_of_the_plain_form_s_memory_which_is_one_matrix() -> None:
    batch = 3072
    plain, chunked = in_fresh_processes(bytes_of_the_loss, [(batch, None), (batch, 64)])
    matrix = 4 * batch**2
    # The matrix, and two blocks of at most 2**22 numbers.
    assert matrix < plain < matrix + 40 * MEBIBYTE
    assert chunked < plain / 8


def test_an_error_in_a_fresh_process_is_raised_here() -> None:
    with pytest.raises(ValueError, match="what went wrong"):
        in_fresh_processes(fail, [("what went wrong",)])


def test_every_form_in_one_process_and_on_ranks_has_a_row(
    capfd: pytest.CaptureFixture[str],
) -> None:
    run(["batch_sizes=[32]", "big_batch=64", "dim=8", "chunk_size=8", "repeats=1", "threads=2"])
    printed = capfd.readouterr().out
    assert "chunked at batch 64 under 1 GiB above its inputs: reached" in printed
    report = json.loads(printed.splitlines()[-1])
    alone, gathered = ["plain", "chunked", "open_clip"], ["open_clip, local loss"]
    expected = [*product([1], alone), *product([2], alone + gathered)]
    assert [(row["ranks"], row["form"]) for row in report["rows"]] == expected
    assert all(row["seconds"] > 0 for row in report["rows"])


def test_the_ratio_is_the_median_of_those_of_neighbours_in_time() -> None:
    row = Row(8, 1, "chunked", seconds=2.0, time_ratios=[1.2, 9.0, 1.3], peak_bytes=0)
    assert row.time_ratio == 1.3


def test_open_clip_s_rows_are_ours_with_equal_weights() -> None:
    image, report = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(0)).double()
    expected = global_contrastive_loss(image, report, image_to_report_weight=0.5)
    forms = loss_forms(LossBenchmarkConfig(), rank=0)
    for name in ("open_clip", "open_clip, local loss"):
        torch.testing.assert_close(forms[name](image, report), expected)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("chunks=3", "did you mean 'chunk_size'"),
        ("batch_sizes=[9]", "9 is not divisible by ranks=2: use 8"),
        ("repeats=0", "repeats"),
    ],
)
def test_a_bad_setting_is_refused(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run([override])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="2 ranks need as many GPUs, found 0"):
        run(["device=cuda"])
