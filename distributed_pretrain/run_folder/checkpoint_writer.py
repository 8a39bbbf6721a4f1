"""Checkpoints written while training goes on.

Training stops for one copy in memory and nothing else: hashing, writing and waiting for the disk
are the work of a background thread that gives way to training where processor time is short.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from distributed_pretrain.byte_block import Block, Placing, page_lock, page_unlock
from distributed_pretrain.run_folder.checkpoint import Checkpoint, save_checkpoint
from distributed_pretrain.run_folder.tensor_files import join_tensors, split_tensors

# Training goes first where both want a core; the lowest priority of all would never end a save on
# a machine that others use too.
_NICENESS_ABOVE_TRAINING = 10

# After each mebibyte, which takes about two milliseconds: a fifth of a core is little even where
# training has two, and 2 GB take some 35 seconds (docs/measurements.md).
REST_SECONDS = 0.01


class CheckpointWriter:
    """Saves into `folder` as `save_checkpoint` does, keeping the newest `keep` and the best.

    Only rank 0 has one. One save is under way at a time. What a save raises (InputError for a
    full disk and the like) comes out of the next `save`, `wait` or `close`, once. It holds a
    second copy of the state in the CPU's memory, page-locked where the state is on a GPU.
    `while_writing` is entered around each save, and `on_saved` called after it, in the background
    thread.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        while_writing: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        on_saved: Callable[[], None] = lambda: None,
    ) -> None:
        self._while_writing = while_writing
        self._on_saved = on_saved
        self._awaited = threading.Event()  # somebody waits for the save: no more rests
        self._folder = folder
        self._keep = keep
        self._snapshot = CheckpointSnapshot()
        self._thread = ThreadPoolExecutor(1, "checkpoint", initializer=_give_way_to_training)
        self._under_way: Future[Path] | None = None

    @property
    def is_saving(self) -> bool:
        """Whether a save is still being written."""
        return self._under_way is not None and not self._under_way.done()

    def save(self, checkpoint: Checkpoint, *, is_best: bool) -> None:
        """Copy `checkpoint` and return; it may change from then on.

        Waits for an earlier save, and raises what that raised, with nothing new saved.
        """
        self.wait()
        snapshot = self._snapshot.take(checkpoint)
        self._awaited.clear()
        self._under_way = self._thread.submit(self._write, snapshot, is_best)

    def _write(self, snapshot: Checkpoint, is_best: bool) -> Path:
        with self._while_writing():
            saved = save_checkpoint(
                self._folder,
                snapshot,
                keep=self._keep,
                is_best=is_best,
                after_piece=lambda: self._awaited.wait(REST_SECONDS),
            )
            self._on_saved()
            return saved

    def wait(self) -> None:
        """Return when all is on the disk. Raises what the save raised."""
        if self._under_way is None:
            return
        self._awaited.set()
        try:
            self._under_way.result()
        finally:
            if self._under_way.done():  # else an interrupt cut the waiting short
                self._under_way = None

    def close(self) -> None:
        """`wait`, then end the thread and free the memory; it is not used again."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._snapshot.close()


class CheckpointSnapshot:
    """One block of CPU memory that holds a checkpoint, used again from copy to copy."""

    def __init__(self) -> None:
        self._block: Block = torch.empty(0, dtype=torch.uint8)
        self._locked = False

    def take(self, checkpoint: Checkpoint) -> Checkpoint:
        """A copy of `checkpoint` that lives until the next call.

        Tensors that are the same memory seen the same way (tied weights) are copied once.
        """
        tree = {name: getattr(checkpoint, name) for name in ("config", "model", "optimizer")}
        plain, sources = split_tensors(tree)
        by_view = {_view(source): source for source in sources.values()}
        placing = Placing()
        places = {view: placing.place(source) for view, source in by_view.items()}
        gpus = {source.device for source in sources.values() if source.is_cuda}
        self._make_room(placing.size_bytes, page_locked=bool(gpus))
        copied = {
            view: places[view].view(self._block).copy_(source.detach(), non_blocking=True)
            for view, source in by_view.items()
        }
        for device in gpus:
            torch.cuda.current_stream(device).synchronize()
        copies = {name: copied[_view(source)] for name, source in sources.items()}
        joined = join_tensors(plain, copies)
        return replace(checkpoint, state=replace(checkpoint.state), **joined)

    def close(self) -> None:
        """Give the memory back; no copy is used any more."""
        if self._locked:
            page_unlock(self._block)
        self._block, self._locked = torch.empty(0, dtype=torch.uint8), False

    def _make_room(self, size_bytes: int, *, page_locked: bool) -> None:
        if len(self._block) >= size_bytes and self._locked >= page_locked:
            return
        self.close()
        self._block = torch.empty(size_bytes, dtype=torch.uint8)
        if page_locked:
            page_lock(self._block)
        self._locked = page_locked


def _view(source: Tensor) -> tuple[object, ...]:
    """Equal for tensors that are the same memory seen the same way."""
    return (source.device, source.data_ptr(), source.dtype, source.shape, source.stride())


def _give_way_to_training() -> None:
    """Lower this thread's priority; elsewhere than on Linux it would be the whole process's."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        niceness = os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS_ABOVE_TRAINING
        os.setpriority(os.PRIO_PROCESS, thread, niceness)
