"""Damage as copies, disks, editors and scripts do it: pure functions of a random generator.

Each returns what was done, in words for a failing test, and the damaged content. `seed_of_the_day`
is for suites that try others every day and print which.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, TypeAlias

Damaged: TypeAlias = tuple[str, bytes]
# Where a value lies in a document: keys of objects and positions in lists.
JsonPath: TypeAlias = tuple[str | int, ...]

DEEP = 100_000
# Of every type that JSON has, and numbers at and beyond the ends of what machines hold.
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    512,
    2**31,
    2**63,
    2**64,
    -(2**70),
    10**40,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    "0",
    "\x00",
    "../outside",
    "/etc/hostname",
    "train",
    "L",
    "\u00e9\u2028\U0001f600",
    "x" * 5000,
    [],
    [[]],
    {},
    {"": None},
)


def seed_of_the_day() -> int:
    """The number in FUZZ_SEED, otherwise today's date as one."""
    return int(os.environ.get("FUZZ_SEED") or f"{datetime.date.today():%Y%m%d}")


def damage_bytes(content: bytes, random: Random) -> Damaged:
    """A flipped bit or byte, a cut, zeros, a piece twice or left out, or bytes put in."""
    return random.choice(BYTE_DAMAGES)(content, random)


def damage_json(content: bytes, random: Random) -> Damaged:
    """One value of a JSON document made another, and rarely the document itself."""
    document = json.loads(content)
    paths = list(json_paths(document))
    what, change = random.choice(JSON_DAMAGES)
    path = random.choice(paths)
    if random.random() < 0.04:
        word, text = random.choice(WHOLE_DOCUMENTS)
        return f"the document became {word}", text
    where = ".".join(map(str, path)) or "the document"
    changed = change(document, path, random)
    return f"{where}: {what}", json.dumps(changed).encode()


def json_paths(value: Any, path: JsonPath = ()) -> Iterator[JsonPath]:
    """The places of all values of a document, the document's own first."""
    yield path
    inside: Any = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)
    for key, each in inside:
        yield from json_paths(each, (*path, key))


def value_at(document: Any, path: JsonPath) -> Any:
    """The value at `path`."""
    for key in path:
        document = document[key]
    return document


def with_value(document: Any, path: JsonPath, value: Any) -> Any:
    """`document`, changed in place, with `value` at `path`; `value` itself where that is empty."""
    if not path:
        return value
    value_at(document, path[:-1])[path[-1]] = value
    return document


def _span(content: bytes, random: Random) -> tuple[int, int]:
    start = random.randrange(max(1, len(content)))
    return start, min(len(content), start + random.choice((1, 16, 512, 4096)))


def _flip_bit(content: bytes, random: Random) -> Damaged:
    at, bit = random.randrange(max(1, len(content))), random.randrange(8)
    changed = bytearray(content)
    if changed:
        changed[at] ^= 1 << bit
    return f"bit {bit} of byte {at} flipped", bytes(changed)


def _flip_byte(content: bytes, random: Random) -> Damaged:
    at = random.randrange(max(1, len(content)))
    changed = bytearray(content)
    if changed:
        changed[at] ^= 0xFF
    return f"byte {at} flipped", bytes(changed)


def _cut(content: bytes, random: Random) -> Damaged:
    at = random.choice((0, 1, len(content) // 2, random.randrange(max(1, len(content)))))
    return f"cut after {at} bytes", content[:at]


def _zero(content: bytes, random: Random) -> Damaged:
    start, end = _span(content, random)
    return f"zeros from {start} to {end}", content[:start] + bytes(end - start) + content[end:]


def _double(content: bytes, random: Random) -> Damaged:
    start, end = _span(content, random)
    return f"bytes {start} to {end} twice", content[:end] + content[start:]


def _leave_out(content: bytes, random: Random) -> Damaged:
    start, end = _span(content, random)
    return f"bytes {start} to {end} left out", content[:start] + content[end:]


def _put_in(content: bytes, random: Random) -> Damaged:
    start, _ = _span(content, random)
    new = random.randbytes(random.choice((1, 7, 512)))
    return f"{len(new)} bytes put in at {start}", content[:start] + new + content[start:]


def _append(content: bytes, random: Random) -> Damaged:
    tail = random.choice((bytes(300), b"\xff\xfe\n", random.randbytes(100), content[:512]))
    return f"{len(tail)} bytes appended", content + tail


BYTE_DAMAGES: tuple[Callable[[bytes, Random], Damaged], ...] = (
    _flip_bit,
    _flip_byte,
    _cut,
    _zero,
    _double,
    _leave_out,
    _put_in,
    _append,
)


def _other_value(document: Any, path: JsonPath, random: Random) -> Any:
    return with_value(document, path, random.choice(VALUES))


def _other_number(document: Any, path: JsonPath, random: Random) -> Any:
    """A little more or less, or another sign: of the right type, and wrong."""
    value = value_at(document, path)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _other_value(document, path, random)
    other = random.choice((value + 1, value - 1, -value, value * 2, value + 512, value * 10**9))
    return with_value(document, path, other)


def _other_text(document: Any, path: JsonPath, random: Random) -> Any:
    """One letter more, less or changed, or the text of another place."""
    value = value_at(document, path)
    texts = [each for p in json_paths(document) if isinstance(each := value_at(document, p), str)]
    if not isinstance(value, str) or not value:
        return _other_value(document, path, random)
    at = random.randrange(len(value))
    others = (value + "x", value[:-1], value[:at] + "z" + value[at + 1 :], random.choice(texts))
    return with_value(document, path, random.choice(others))


def _removed(document: Any, path: JsonPath, random: Random) -> Any:
    if not path:
        return _other_value(document, path, random)
    del value_at(document, path[:-1])[path[-1]]
    return document


def _renamed(document: Any, path: JsonPath, random: Random) -> Any:
    if not path or not isinstance(path[-1], str):
        return _doubled(document, path, random)
    parent = value_at(document, path[:-1])
    parent[random.choice((path[-1] + "s", path[-1].upper(), "", "../x"))] = parent.pop(path[-1])
    return document


def _doubled(document: Any, path: JsonPath, random: Random) -> Any:
    """A value of a list twice; elsewhere an exchange."""
    if not path or not isinstance(path[-1], int):
        return _exchanged(document, path, random)
    parent = value_at(document, path[:-1])
    parent.insert(random.randrange(len(parent) + 1), parent[path[-1]])
    return document


def _exchanged(document: Any, path: JsonPath, random: Random) -> Any:
    """Two values of one list or object change places."""
    parent = value_at(document, path[:-1])
    if not path:
        return _other_value(document, path, random)
    other = random.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
    parent[path[-1]], parent[other] = parent[other], parent[path[-1]]
    return document


JSON_DAMAGES: tuple[tuple[str, Callable[[Any, JsonPath, Random], Any]], ...] = (
    ("another value", _other_value),
    ("another number", _other_number),
    ("another text", _other_text),
    ("removed", _removed),
    ("renamed", _renamed),
    ("twice", _doubled),
    ("exchanged", _exchanged),
)
WHOLE_DOCUMENTS: tuple[tuple[str, bytes], ...] = (
    ("nothing", b""),
    ("null", b"null"),
    ("a list", b"[]"),
    ("an object", b"{}"),
    ("a number", b"5"),
    ("a number of 5,000 digits", b"9" * 5000),
    ("deep lists", b"[" * DEEP),
    ("deep objects", b'{"a":' * DEEP),
    ("bytes that are no UTF-8", b"\xff\xfe\x00{}"),
    ("a text without end", b'{"a": "'),
    ("zeros", bytes(4096)),
)
