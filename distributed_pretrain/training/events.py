"""TensorBoard's event file: pictures and curves to look at, beside `metrics.jsonl`, the record.

torch's `SummaryWriter` writes from a thread of its own, which dies with a traceback, and the run
with it, where the folder is deleted or the disk full. Here that is a warning, and the run goes on.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import image

from data_shards.errors import warn

SECONDS_BETWEEN_FLUSHES = 10.0


class EventFile:
    """A new event file in `folder`; TensorBoard forgets what others have from `purge_step` on."""

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        self._folder = folder
        self._flushed = time.monotonic()
        self._records: RecordWriter | None = None
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._records = RecordWriter(self._path.open("xb"))
        except OSError as error:
            self._give_up(error.strerror)
        start = SessionLog(status=SessionLog.START)
        self._write(Event(step=purge_step, file_version="brain.Event:2"))
        self._write(Event(step=purge_step, session_log=start))
        self.flush()

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A point on each curve, by its name."""
        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(step=step, summary=Summary(value=points)))
        if time.monotonic() - self._flushed > SECONDS_BETWEEN_FLUSHES:
            self.flush()

    def add_picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """A picture (height, width, 3)."""
        self._write(Event(step=step, summary=image(name, picture, dataformats="HWC")))

    def flush(self) -> None:
        """Hand all to the system."""
        self._flushed = time.monotonic()
        if self._records is not None:
            try:
                self._records.flush()
            except OSError as error:
                self._give_up(error.strerror)
            if not self._path.exists():
                self._give_up("the file was moved or deleted")

    def close(self) -> None:
        """Flush, and end."""
        self.flush()
        if self._records is not None:
            self._records.close()
            self._records = None

    def _write(self, event: Event) -> None:
        if self._records is not None:
            event.wall_time = time.time()
            try:
                self._records.write(event.SerializeToString())
            except OSError as error:
                self._give_up(error.strerror)

    def _give_up(self, why: str | None) -> None:
        if self._records is not None:
            with contextlib.suppress(OSError):  # what it still holds has no place
                self._records.close()
        self._records = None
        warn(
            f"{self._folder}: not written ({why}): TensorBoard shows no more of this "
            "start; metrics.jsonl has every number",
        )
