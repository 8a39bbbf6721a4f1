"""Where else the images of shards can come from: a web server on this machine, and webdataset."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from torch.utils.data import DataLoader

from data_shards.remote.address import Address


@contextmanager
def served(folder: Path) -> Iterator[Address]:
    """The address of a folder meanwhile."""
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield Address(f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def plain_webdataset(folder: Path, *, workers: int) -> DataLoader[object]:
    """Grey images and records without end, decoded as webdataset does, one by one."""
    from webdataset import WebDataset

    tars = [str(path) for path in sorted(folder.glob("train-*.tar"))]
    samples = WebDataset(tars, shardshuffle=False, empty_check=False).decode("l8").repeat()
    pairs = samples.to_tuple("image0.jpg", "json")
    return DataLoader(pairs, batch_size=None, num_workers=workers, collate_fn=tuple)
