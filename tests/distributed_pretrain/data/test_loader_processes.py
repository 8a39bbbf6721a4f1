"""Batches made by a process of their own are those of threads; it ends with whoever asked."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Generator
from functools import partial
from itertools import islice
from multiprocessing import forkserver
from pathlib import Path
from typing import cast

import psutil
import pytest
import torch

from data_shards.errors import InputError
from data_shards.files.json_lines import JsonLines
from data_shards.records.manifest import read_shard_index
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.data.host_batch import HostBatch
from distributed_pretrain.data.loader import TrainingLoader
from distributed_pretrain.data.loader_processes import Batches, batches_apart
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.tokenization import SentenceTokenizer
from tests.distributed_pretrain.phantom_batches import assert_same, configured, opened, train

HOST = torch.device("cpu")


def apart(data: DataConfig, *, processes: int = 1) -> DataConfig:
    return data.model_copy(update={"loader_processes": processes})


def child() -> multiprocessing.process.BaseProcess:
    (process,) = multiprocessing.active_children()
    return process


@pytest.mark.parametrize(
    ("views", "processes"), [("frontal_lateral", 1), ("two_augmentations", 1), ("frontal", 3)]
)
def test_batches_are_those_of_threads(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer, views: str, processes: int
) -> None:
    data = configured(phantom_shards, views=views)
    several = apart(data, processes=processes)
    here = train(data, small_tokenizer, steps=7)
    there = train(several, small_tokenizer, steps=7)
    assert_same(there, here)
    for ours, theirs in zip(here, there, strict=True):
        assert (ours.real, ours.epoch) == (theirs.real, theirs.epoch)
        assert ours.samples_consumed == theirs.samples_consumed
    (resumed,) = train(several, small_tokenizer, steps=1, consumed=24)
    assert torch.equal(resumed.images, here[3].images)
    assert multiprocessing.active_children() == []


def test_host_batches_in_a_block_are_themselves(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer
) -> None:
    data = configured(phantom_shards, views="frontal_lateral")
    host = next(TrainingLoader(opened(data), small_tokenizer, data).host_batches())
    _, size_bytes = host.places()
    block = torch.full((size_bytes,), 0xA5, dtype=torch.uint8)
    packed = host.in_block(block)
    moved = packed.to(HOST)
    block.zero_()
    assert torch.equal(moved.frontal.pixels, host.frontal.pixels)
    assert torch.equal(moved.batch.report.token_ids, host.batch.report.token_ids)
    assert not packed.batch.report.token_ids.any(), "a view of the block"


@pytest.mark.parametrize("processes", [1, 2])
def test_unreadable_samples_are_named_by_the_process(
    tmp_path: Path, small_tokenizer: SentenceTokenizer, processes: int
) -> None:
    write_synthetic_shards(
        tmp_path / "shards", studies={"train": 12}, studies_a_shard=12, longest_side_px=48
    )
    index = read_shard_index(tmp_path / "shards" / "train-000000.index.json")
    with (tmp_path / "shards" / index.tar_name).open("r+b") as tar:
        tar.seek(index.samples[3].members["json"].offset + 40)
        tar.write(b"\x13\x37")
    allowed = configured(tmp_path / "shards", global_batch=4, max_bad_fraction=0.1)
    data = apart(allowed, processes=processes)
    lines = JsonLines(tmp_path / "quarantine.jsonl")
    stream = TrainingLoader(opened(data), small_tokenizer, data, quarantine=lines).batches()
    assert sum(batch.replaced for batch in islice(stream, 3)) == 1
    stream.close()
    # Each writes it down once, unless it finds it written.
    keys = [line["key"] for line in lines.read()]
    assert set(keys) == {"train000003"}
    assert len(keys) <= processes

    strict = data.model_copy(update={"max_bad_fraction": 0.0})
    with pytest.raises(InputError, match="1 of 12 samples of split 'train' cannot be read"):
        list(islice(TrainingLoader(opened(strict), small_tokenizer, strict).batches(), 3))
    assert multiprocessing.active_children() == []


def broken() -> Generator[HostBatch]:
    yield cast(HostBatch, 1 / 0)


def cut_short() -> Generator[HostBatch]:
    yield cast(HostBatch, _raise(EOFError("a file")))


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("batches", "error", "says"),
    [(broken, ZeroDivisionError, "division by zero"), (cut_short, EOFError, "a file")],
)
def test_other_errors_bring_their_traceback_along(
    batches: Batches, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as raised:
        next(batches_apart([batches], HOST))
    assert f"in {batches.__name__}" in "".join(raised.value.__notes__)


def one_and_broken(host: HostBatch) -> Generator[HostBatch]:
    yield host
    yield cast(HostBatch, 1 / 0)


def without_end(host: HostBatch) -> Generator[HostBatch]:
    while True:
        yield host


def test_an_error_comes_in_its_turn_and_ends_all(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer
) -> None:
    data = configured(phantom_shards)
    host = next(TrainingLoader(opened(data), small_tokenizer, data).host_batches())
    stream = batches_apart([partial(without_end, host), partial(one_and_broken, host)], HOST)
    assert len(list(islice(stream, 3))) == 3
    with pytest.raises(ZeroDivisionError):
        next(stream)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_process_is_a_line(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer, processes: int
) -> None:
    data = apart(configured(phantom_shards), processes=processes)
    stream = TrainingLoader(opened(data), small_tokenizer, data).batches()
    next(stream)
    multiprocessing.active_children()[-1].kill()
    with pytest.raises(InputError, match=r"a process that loads data has ended .*-9"):
        list(islice(stream, 10))
    assert multiprocessing.active_children() == []


def test_signals_that_end_the_run_leave_the_process_to_it(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer
) -> None:
    """Slurm sends them to every process of a step; the rank saves first."""
    forkserver.ensure_running()  # as another part of the program may have: without our rules
    data = apart(configured(phantom_shards))
    stream = TrainingLoader(opened(data), small_tokenizer, data).batches()
    next(stream)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        os.kill(child().pid or 0, number)
    assert len(list(islice(stream, 8))) == 8
    stream.close()


@pytest.mark.slow
def test_the_process_ends_with_a_killed_run(phantom_shards: Path, tmp_path: Path) -> None:
    program = tmp_path / "run.py"
    program.write_text(
        textwrap.dedent(
            """
            import sys, time, multiprocessing
            from pathlib import Path
            from tests.distributed_pretrain.phantom_batches import configured, opened
            from distributed_pretrain.data.loader import TrainingLoader
            from distributed_pretrain.data.tokenization import NoReports
            if __name__ == "__main__":
                data = configured(Path(sys.argv[1]), loader_processes=1)
                stream = TrainingLoader(opened(data), NoReports(), data).batches()
                next(stream)
                print(multiprocessing.active_children()[0].pid, flush=True)
                time.sleep(60)
            """
        )
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(program), str(phantom_shards)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        loader = psutil.Process(int(run.stdout.readline()))
        run.kill()
    deadline = time.monotonic() + 20
    while loader.is_running() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not loader.is_running()


def test_blocks_grow_with_the_batches(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer
) -> None:
    """A block that has become too small is another one; those that are read stay."""
    data = configured(phantom_shards, views="frontal_lateral")
    sizes = [len(batch.report.token_ids[0]) for batch in train(data, small_tokenizer, steps=12)]
    assert len(set(sizes)) > 1
    assert_same(
        train(apart(data), small_tokenizer, steps=12), train(data, small_tokenizer, steps=12)
    )
