"""A plain web server of synthetic shards, with faults when they are asked for."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from data_shards.remote.address import Address
from data_shards.synthetic_shards import write_synthetic_shards

TAR = "train-000000.tar"


class WebStore(ThreadingHTTPServer):
    """A folder on a port of this machine; `faults` are met by the next requests of a tar.

    `most_at_once` tars were under way together, each for `seconds_a_tar` at least.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[str] = []
        self.asked = Counter[str]()
        self.enough = threading.Event()
        self.seconds_a_tar = 0.0
        self.most_at_once = self._at_once = 0
        self._counting = threading.Lock()
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.address = Address(f"http://127.0.0.1:{self.server_port}")

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """A tar is asked for."""
        with self._counting:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        self.enough.wait(self.seconds_a_tar)
        try:
            yield
        finally:
            with self._counting:
                self._at_once -= 1


class _Handler(SimpleHTTPRequestHandler):
    server: WebStore

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.asked[name] += 1
        fault = self.server.faults.pop(0) if self.server.faults and name == TAR else ""
        content = b""
        if fault:
            content = (self.server.folder / name).read_bytes()
        under_way = self.server.under_way() if name.endswith(".tar") else nullcontext()
        with suppress(ConnectionError), under_way:  # who asked has had enough
            self._answer(fault, content)

    def _answer(self, fault: str, content: bytes) -> None:
        if fault == "stall":
            self.server.enough.wait(5)
        elif fault.isdigit():
            self.send_error(int(fault))
        elif fault == "cut":  # without a length, so that only its end tells
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
        elif fault == "die":
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
        elif fault == "half":
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.server.enough.wait(60)
        elif fault in ("other", "endless"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bytes(len(content) * (1 if fault == "other" else 9)))
        else:
            super().do_GET()


@contextmanager
def running(folder: Path) -> Iterator[WebStore]:
    """Twelve studies in three shards, served from `folder`; afterwards nothing answers."""
    write_synthetic_shards(
        folder, studies={"train": 12}, studies_a_shard=4, longest_side_px=32, views=("PA",)
    )
    with serving(folder) as server:
        yield server


@contextmanager
def serving(folder: Path) -> Iterator[WebStore]:
    """The same for the shards that are in `folder`."""
    with WebStore(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.enough.set()
            server.shutdown()
            thread.join()
