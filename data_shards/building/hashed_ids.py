"""Ids as shards store them: as the source says, or keyed hashes in their place.

A hash is the first 128 bits of HMAC-SHA-256 (RFC 2104): without the key nobody can try ids one by
one, and with the same key every set gets the same hash of an id, so that joins keep working.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from data_shards.errors import InputError
from data_shards.records.manifest import DroppedSample

_FEWEST_BYTES = 16
_HEX_DIGITS = 32
# What lines with counts say of single ones.
_EXAMPLE = re.compile(r" \(first: .*?\)(?=:|$)")


def naming(key_file: Path | None) -> Callable[[str], str]:
    """What an id is stored as. Raises InputError for a key file that is absent or too short."""
    return str if key_file is None else partial(hashed, _key(key_file))


def hashed(key: bytes, name: str) -> str:
    """The hash of an id in 32 hexadecimal digits."""
    return hmac.new(key, name.encode(), hashlib.sha256).hexdigest()[:_HEX_DIGITS]


def renamed(dropped: DroppedSample, name: Callable[[str], str]) -> DroppedSample:
    """What was dropped, by the name that its id is stored as."""
    return dropped.model_copy(update={"key": name(dropped.key)})


def without_examples(warning: str) -> str:
    """A line with counts, less the ids that it shows."""
    return _EXAMPLE.sub("", warning)


@cache
def _key(path: Path) -> bytes:
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise InputError(
            f"hash_ids={path}: cannot be read ({error.strerror}): make a key once, and keep it "
            f"apart from the shards: openssl rand -hex 32 > {path}"
        ) from error
    if len(key) < _FEWEST_BYTES:
        raise InputError(
            f"hash_ids={path}: {len(key)} bytes are no key: {_FEWEST_BYTES} or more are needed: "
            f"openssl rand -hex 32 > {path}"
        )
    return key
