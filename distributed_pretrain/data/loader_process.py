"""Host batches made by a process of their own, off the interpreter that launches the steps.

Decoding threads take the interpreter's lock from whoever launches a GPU's operations, thousands a
step. So the same threads run in another process, one a rank, and what they make comes back in a few
blocks of shared memory, which this process has page-locked once. What is drawn, in which order, and
what is met on the way are the loader's, wherever it runs.

Blocks are anonymous files: the size of /dev/shm does not bound them, and none is left behind.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import recv_handle, send_handle
from typing import NamedTuple, TypeAlias

import torch

from data_shards.errors import InputError
from data_shards.processes import ENDING_SIGNALS, end_with_parent, start_server
from distributed_pretrain.byte_block import Block, page_lock, page_unlock
from distributed_pretrain.data.host_batch import HostBatch, batch_at

# One on its way to the device, one ready, one being filled.
_BLOCKS = 3
# Batches differ in size: their images by windows, their reports by tokens.
_ROOM_TO_GROW = 1.25

# Called in the other process, for threads and open files cannot be sent there.
Batches: TypeAlias = Callable[[], Generator[HostBatch]]


class _NewBlock(NamedTuple):
    """Block `number` is another one from now on, of so many bytes; its file follows."""

    number: int
    size_bytes: int


class _Filled(NamedTuple):
    """A batch lies at these places of block `number`."""

    number: int
    places: HostBatch


class _Failed(NamedTuple):
    """There is no further batch, because of this."""

    error: Exception


class _End(NamedTuple):
    """There is no further batch."""


def batches_apart(batches: Batches, device: torch.device) -> Generator[HostBatch]:
    """What `batches()` gives in another process, which starts with the first that is asked for.

    A batch's memory is used again once the next is asked for and the work is done that had been
    queued on `device` until then. Exceptions are raised in their batch's turn; InputError when the
    process was killed, and where a system has no anonymous files. The process ends when the
    iterator ends, is closed or fails, or with this process.
    """
    if not hasattr(os, "memfd_create"):
        raise InputError(
            "data.loader_process=true: only Linux has the shared memory that it needs: leave it out"
        )
    server = start_server(preload=("distributed_pretrain.data.loader",))
    ours, theirs = server.Pipe()
    process = server.Process(target=_serve, args=(batches, theirs), name="loader")
    process.start()
    theirs.close()
    inbox = _Inbox(process, ours, device)
    try:
        yield from inbox.batches()
    finally:
        ours.close()
        process.join()
        inbox.close()


class _Inbox:
    """The blocks on this side, page-locked for a GPU."""

    def __init__(self, process: BaseProcess, connection: Connection, device: torch.device) -> None:
        self._process = process
        self._connection = connection
        self._device = device
        self._on_gpu = device.type == "cuda"
        self._blocks: dict[int, Block] = {}

    def batches(self) -> Generator[HostBatch]:
        """Raises what was raised there, and InputError when the process is gone."""
        used = deque[tuple[int, torch.cuda.Event | None]]()
        while not isinstance(message := self._next_message(), _End):
            if isinstance(message, _Failed):
                raise message.error
            if isinstance(message, _NewBlock):
                self._replace(message)
                continue
            assert isinstance(message, _Filled)
            yield batch_at(message.places, self._blocks[message.number])
            used.append((message.number, self._queued_work()))
            # On a GPU the newest is still being read: the one before is given back.
            while len(used) > self._on_gpu:
                number, done = used.popleft()
                if done is not None:
                    done.synchronize()
                with suppress(ConnectionError):  # the next message, which is none, tells of it
                    self._connection.send(number)

    def _next_message(self) -> object:
        try:
            return self._connection.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join()
            raise InputError(
                "the process that loads data has ended by itself (exit status "
                f"{self._process.exitcode}; -9 is what a lack of memory looks like): what is saved "
                "is kept; run the same command again, with a smaller data.prefetch_batches or "
                "data.loader_process=false"
            ) from error

    def close(self) -> None:
        """Let go of the blocks, once the device does not read them any more."""
        if self._on_gpu:
            torch.cuda.synchronize(self._device)
            for block in self._blocks.values():
                page_unlock(block)

    def _replace(self, new: _NewBlock) -> None:
        block = _map(recv_handle(self._connection), new.size_bytes)
        if self._on_gpu:
            if new.number in self._blocks:  # free, so nobody reads it any more
                page_unlock(self._blocks[new.number])
            page_lock(block)
        self._blocks[new.number] = block

    def _queued_work(self) -> torch.cuda.Event | None:
        return torch.cuda.current_stream(self._device).record_event() if self._on_gpu else None


def _serve(batches: Batches, connection: Connection) -> None:
    """Send what `batches()` gives, until nobody wants more."""
    # Slurm's reach every process of a step: the rank decides. (A server that another part of the
    # program started earlier need not ignore them.)
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    outbox = _Outbox(connection)
    # Whoever wants no more has closed the connection.
    with closing(_to_the_end(batches)) as stream, suppress(EOFError, ConnectionError):
        for each in stream:
            if isinstance(each, HostBatch):
                outbox.put(each)
            else:
                connection.send(each)


def _to_the_end(batches: Batches) -> Generator[HostBatch | _Failed | _End]:
    """The batches, and what ended them."""
    try:
        with closing(batches()) as stream:
            yield from stream
    except Exception as error:  # noqa: BLE001  # whatever it is, the other process raises it
        if not isinstance(error, InputError):
            error.add_note(traceback.format_exc())
        yield _Failed(error)
    else:
        yield _End()


class _Outbox:
    """Fills blocks that nobody reads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._free = deque(range(_BLOCKS))
        self._blocks: dict[int, Block] = {}

    def put(self, host: HostBatch) -> None:
        """Raises EOFError or ConnectionError when nobody is there."""
        places, size_bytes = host.places()
        while not self._free:
            self._free.append(self._connection.recv())
        number = self._free.popleft()
        if number not in self._blocks or len(self._blocks[number]) < size_bytes:
            self._blocks[number] = self._new(number, int(size_bytes * _ROOM_TO_GROW))
        host.in_block(self._blocks[number])
        self._connection.send(_Filled(number, places))

    def _new(self, number: int, size_bytes: int) -> Block:
        file = os.memfd_create("batch")
        os.truncate(file, size_bytes)
        self._connection.send(_NewBlock(number, size_bytes))
        parent = multiprocessing.parent_process()
        assert parent is not None
        send_handle(self._connection, file, parent.pid)
        return _map(file, size_bytes)


def _map(file: int, size_bytes: int) -> Block:
    """All of an anonymous file, which is closed."""
    try:
        return torch.frombuffer(mmap.mmap(file, size_bytes), dtype=torch.uint8)
    finally:
        os.close(file)
