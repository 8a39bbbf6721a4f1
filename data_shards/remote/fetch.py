"""One file from a store, whole and as it was meant, or an error that names it.

What a store's client says may hold signed addresses, so its words are never repeated.
"""

from __future__ import annotations

import importlib
import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_shards.errors import InputError, RunError, warn
from data_shards.files.atomic import NO_SPACE
from data_shards.remote.settings import CacheConfig

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 30.0
_ADAPTERS = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs"}


class DamagedOnArrivalError(Exception):
    """What arrived is not what was written: how it differs.

    `whole` is the hash of a file that has all its bytes, though others.
    """

    def __init__(self, how: str, *, whole: str = "") -> None:
        super().__init__(how)
        self.whole = whole


class StoreError(RunError):
    """A store did not give a file in all the time that it was given."""


class NotInStoreError(InputError):
    """A store has no such file."""


class DamagedInStoreError(InputError):
    """A store has a file of this name, and it is another than was written."""


def fetch(
    address: str, path: Path, config: CacheConfig, check: Callable[[Path], None], *, most_bytes: int
) -> None:
    """Write the file at `address` to `path`, which `check` has passed when this returns.

    `check` raises DamagedOnArrivalError. That, an answer longer than `most_bytes`, an error of the
    network or of the server, and a silence longer than `config.timeout_seconds` are tried again
    until `config.patience_seconds` have passed. Raises StoreError then. What no wait mends is told
    at once: NotInStoreError; DamagedInStoreError where the same whole file of other bytes arrives
    twice; InputError for one that is not for us and for a missing package; and OSError for what
    this machine's disk refuses.
    """
    deadline = time.monotonic() + config.patience_seconds
    wait, tries, arrived = _FIRST_WAIT_SECONDS, 1, ""
    while True:
        try:
            _download(address, path, config, most_bytes)
            check(path)
            return
        except FileNotFoundError as error:
            if _is_of_disk(error, path):
                raise
            raise NotInStoreError(
                f"{address}: not there: check the address, or copy it again"
            ) from error
        except (InputError, RunError, AssertionError, AttributeError, NameError, TypeError):
            raise  # the last four are our own mistakes, which no wait mends
        except Exception as error:
            if isinstance(error, OSError) and _is_of_disk(error, path):
                raise
            if isinstance(error, PermissionError) or _status(error) in (401, 403):
                raise InputError(
                    f"{address}: the store refuses to give it: log in with the store's own tools, "
                    "or let this user read it"
                ) from None
            if isinstance(error, DamagedOnArrivalError):
                if error.whole and error.whole == arrived:
                    raise DamagedInStoreError(
                        f"{address}: {error}, and the same ones again: it was replaced or damaged "
                        "there: copy it there again, or start anew with what is there now"
                    ) from None
                arrived = error.whole
            why = _told(error, config)
        if time.monotonic() + wait > deadline:
            raise StoreError(
                f"{address}: {why}, {tries} times in {config.patience_seconds:g} s: check the store"
                " and the network, then give the same command again (data.cache.patience_seconds)"
            )
        warn(f"{address}: {why}: asked again in {wait:.1f} s")
        # Not all ranks at once.
        time.sleep(wait * random.uniform(0.5, 1))
        wait, tries = min(2 * wait, _LONGEST_WAIT_SECONDS), tries + 1


def _download(address: str, path: Path, config: CacheConfig, most_bytes: int) -> None:
    protocol = address.partition("://")[0].lower()
    adapter = _ADAPTERS[protocol]
    try:
        importlib.import_module(adapter)
    except ImportError as error:
        raise InputError(
            f"{address}: {protocol}:// needs the package {adapter}: pip install {adapter}"
        ) from error
    from fsspec import get_filesystem_class
    from fsspec.callbacks import Callback

    class Bounded(Callback):
        """Ends an answer without end before it fills the disk."""

        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            if self.value > most_bytes:
                raise DamagedOnArrivalError(f"more than its {most_bytes:,} bytes arrive")

    kind = get_filesystem_class(protocol)
    if protocol == "gs":
        # Without its default's search for kinds of buckets, by another protocol and for a minute.
        kind = importlib.import_module("gcsfs.core").GCSFileSystem
        # It would log what a server says.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL + 1)
    store = kind(**_options(protocol, config.timeout_seconds))
    store.get_file(address, str(path), callback=Bounded())


def _options(protocol: str, seconds: float) -> dict[str, Any]:
    """No retries of the client's own, which would not be told; credentials from its usual places.

    Listings are not remembered: a file that was put there since is there. gcsfs alone cannot be
    kept from asking five times more, over half a minute.
    """
    if protocol == "s3":
        times = {
            "connect_timeout": seconds,
            "read_timeout": seconds,
            "retries": {"max_attempts": 1},
        }
        return {"config_kwargs": times, "use_listings_cache": False, "skip_instance_cache": True}
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)
    if protocol == "gs":
        return {"requests_timeout": timeout, "use_listings_cache": False}
    # trust_env: proxies, and names and passwords of ~/.netrc.
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}, "use_listings_cache": False}


def _is_of_disk(error: OSError, path: Path) -> bool:
    return error.errno in NO_SPACE or str(error.filename) == str(path)


def _status(error: BaseException) -> int | None:
    status = getattr(error, "status", None) or getattr(error, "code", None)
    return status if isinstance(status, int) else None


def _told(error: BaseException, config: CacheConfig) -> str:
    if isinstance(error, DamagedOnArrivalError):
        return str(error)
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return f"silent for {config.timeout_seconds:g} s"
    if status := _status(error):
        return f"the server answers with status {status}"
    system = error.strerror if isinstance(error, OSError) else None
    return f"the connection fails ({system or type(error).__name__})"
