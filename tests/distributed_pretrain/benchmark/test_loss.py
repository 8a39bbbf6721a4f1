"""What the forms compute and keep in memory. Never a time."""

from __future__ import annotations

import sys

import pytest
import torch

from data_shards.errors import InputError
from data_shards.profiles import parse_overrides, validate
from distributed_pretrain.benchmark.harness import in_fresh_processes, peak_bytes_above_start
from distributed_pretrain.benchmark.loss import Settings, loss_forms, open_clip_local_loss
from distributed_pretrain.losses.contrastive import global_contrastive_loss

MEBIBYTE = 2**20
# One worker: processes are started from it.
pytestmark = pytest.mark.xdist_group("benchmark")


def settings_of(override: str) -> Settings:
    return validate(Settings, parse_overrides([override]), where="benchmark loss")


def bytes_of_the_loss(batch: int, chunk_size: int | None) -> int:
    def forward_and_backward(rows: int) -> int:
        image, report = (torch.randn(rows, 16).requires_grad_() for _ in range(2))
        return peak_bytes_above_start(
            lambda: global_contrastive_loss(image, report, chunk_size=chunk_size).backward()
        )

    forward_and_backward(8)
    return forward_and_backward(batch)


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from Linux's /proc")
def test_chunks_take_a_small_part_of_the_plain_form_s_memory_which_is_one_matrix() -> None:
    batch = 3072
    plain, chunked = in_fresh_processes(bytes_of_the_loss, [(batch, None), (batch, 64)])
    matrix = 4 * batch**2
    # The matrix, and two blocks of at most 2**22 numbers.
    assert matrix < plain < matrix + 40 * MEBIBYTE
    assert chunked < plain / 8


def test_open_clip_s_rows_are_ours_with_equal_weights() -> None:
    image, report = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(0)).double()
    expected = global_contrastive_loss(image, report, image_to_report_weight=0.5)
    for form in (loss_forms(chunk_size=4)["open_clip"], open_clip_local_loss):
        torch.testing.assert_close(form(image, report), expected)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch_sizes=[9]", "9 is not divisible by ranks=2: use 8"),
        ("repeats=0", "repeats"),
    ],
)
def test_a_bad_setting_is_refused(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings_of(override)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="2 ranks need as many GPUs, found 0"):
        settings_of("device=cuda")
