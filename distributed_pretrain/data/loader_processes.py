"""Host batches made by processes of their own, off the interpreter that launches the steps.

Decoding threads take the interpreter's lock from whoever launches a GPU's operations, thousands a
step, and from each other. So the same threads run in other processes, which make a rank's batches
in turns, and what they make comes back in a few blocks of shared memory, which this process has
page-locked once. What is drawn, in which order, and what is met on the way are the loader's,
wherever it runs.

Blocks are anonymous files: the size of /dev/shm does not bound them, and none is left behind.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, suppress
from itertools import cycle
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import recv_handle, send_handle
from typing import NamedTuple, TypeAlias

import torch

from data_shards.errors import InputError
from data_shards.processes import ENDING_SIGNALS, end_with_parent, start_server
from distributed_pretrain.byte_block import Block, page_lock, page_unlock
from distributed_pretrain.data.host_batch import HostBatch, batch_at

# Of one process: one on its way to the device, one ready, one being filled. Of several that is in
# turns any one's.
_BLOCKS_ALONE, _BLOCKS_EACH = 3, 2
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


def batches_apart(parts: Sequence[Batches], device: torch.device) -> Generator[HostBatch]:
    """What each of `parts` gives in a process of its own, in turns: one batch of each, and again.

    They start with the first that is asked for. The first that ends ends all. A batch's memory is
    used again once the next is asked for and the work is done that had been queued on `device`
    until then. Exceptions are raised in their batch's turn; InputError when a process was killed,
    and where a system has no anonymous files. The processes end when the iterator ends, is closed
    or fails, or with this process.
    """
    if not hasattr(os, "memfd_create"):
        raise InputError(
            "data.loader_processes: only Linux has the shared memory that they need: set it to 0"
        )
    server = start_server(preload=("distributed_pretrain.data.loader",))
    blocks = _BLOCKS_EACH if len(parts) > 1 else _BLOCKS_ALONE
    inboxes: list[_Inbox] = []
    # First all are told that no more is wanted, then each is waited for, whatever ends another.
    with ExitStack() as closed, ExitStack() as told:
        for batches in parts:
            ours, theirs = server.Pipe()
            process = server.Process(target=_serve, args=(batches, theirs, blocks), name="loader")
            process.start()
            theirs.close()
            inbox = _Inbox(process, ours, device)
            closed.callback(inbox.close)
            told.callback(inbox.hang_up)
            inboxes.append(inbox)
        yield from _in_turns(inboxes, device)


def _in_turns(inboxes: Sequence[_Inbox], device: torch.device) -> Generator[HostBatch]:
    """A batch of each inbox, and again, until one ends; their blocks are given back behind it."""
    on_gpu = device.type == "cuda"
    used = deque[tuple[_Inbox, int, torch.cuda.Event | None]]()
    for inbox in cycle(inboxes):
        if (filled := inbox.next_batch()) is None:
            return
        yield inbox.batch_in(filled)
        queued_work = torch.cuda.current_stream(device).record_event() if on_gpu else None
        used.append((inbox, filled.number, queued_work))
        # On a GPU the newest is still being read: the one before is given back.
        while len(used) > on_gpu:
            owner, number, done = used.popleft()
            if done is not None:
                done.synchronize()
            owner.give_back(number)


class _Inbox:
    """A process's blocks on this side, page-locked for a GPU."""

    def __init__(self, process: BaseProcess, connection: Connection, device: torch.device) -> None:
        self._process = process
        self._connection = connection
        self._device = device
        self._on_gpu = device.type == "cuda"
        self._blocks: dict[int, Block] = {}

    def next_batch(self) -> _Filled | None:
        """None after the last. Raises what was raised there, and InputError when it is gone."""
        while not isinstance(message := self._next_message(), _End):
            if isinstance(message, _Failed):
                raise message.error
            if isinstance(message, _NewBlock):
                self._replace(message)
                continue
            assert isinstance(message, _Filled)
            return message
        return None

    def batch_in(self, filled: _Filled) -> HostBatch:
        """The batch that lies there until its block is given back."""
        return batch_at(filled.places, self._blocks[filled.number])

    def give_back(self, number: int) -> None:
        """Let the process use a block again."""
        with suppress(ConnectionError):  # the next message, which is none, tells of it
            self._connection.send(number)

    def _next_message(self) -> object:
        try:
            return self._connection.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join()
            raise InputError(
                "a process that loads data has ended by itself (exit status "
                f"{self._process.exitcode}; -9 is what a lack of memory looks like): what is saved "
                "is kept; run the same command again, with a smaller data.prefetch_batches or "
                "fewer data.loader_processes (0: none)"
            ) from error

    def hang_up(self) -> None:
        """Want no more of the process, which then ends."""
        self._connection.close()

    def close(self) -> None:
        """Let go of the blocks, once the process has ended and the device reads them no more."""
        self._process.join()
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


def _serve(batches: Batches, connection: Connection, blocks: int) -> None:
    """Send what `batches()` gives, until nobody wants more."""
    # Slurm's reach every process of a step: the rank decides. (A server that another part of the
    # program started earlier need not ignore them.)
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    # All that torch does here is copying, for which its threads would wait for each other.
    torch.set_num_threads(1)
    outbox = _Outbox(connection, blocks)
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

    def __init__(self, connection: Connection, blocks: int) -> None:
        self._connection = connection
        self._free = deque(range(blocks))
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
