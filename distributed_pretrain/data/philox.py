"""numpy's Philox stream of a seed of four words, to the bit, without the objects that it costs.

For each sample of each epoch `Generator(Philox(SeedSequence(words)))` would make three objects,
which takes as long as all other reading of a record. `tests/.../test_philox.py` holds all this
against numpy.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

_WORD = 0xFFFFFFFF
_OF_A_UNIFORM = 2.0**-53
# Below it numpy draws a geometric number in another way.
FEWEST_SEARCHED = 1 / 3
_POOL = 4
_INIT_A, _MULT_A, _INIT_B, _MULT_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = 0xCA01F9DD, 0x4973F715


def _constants(first: int, factor: int, count: int) -> list[int]:
    constants = [first]
    for _ in range(count):
        constants.append(constants[-1] * factor & _WORD)
    return constants


# What is mixed with each in turn does not depend on the words.
_A = _constants(_INIT_A, _MULT_A, _POOL * _POOL)
_B = _constants(_INIT_B, _MULT_B, _POOL)
_MIXED = [
    (source, to, _A[_POOL + step], _A[_POOL + step + 1])
    for step, (source, to) in enumerate(
        (source, to) for source in range(_POOL) for to in range(_POOL) if source != to
    )
]
# Of fewer samples the keys are quicker made one by one.
_FEWEST_AT_ONCE = 8
_OWN = threading.local()

Words: TypeAlias = tuple[int, int, int, int]


def raw_words(words: Sequence[Words], count: int) -> NDArray[np.uint64]:
    """A row for each of `words`: the first `count` outputs of `Philox(SeedSequence(each))`.

    They have 64 bits each.
    """
    rows = np.empty((len(words), count), dtype=np.uint64)
    if max(map(max, words), default=0) > _WORD:
        for row, each in zip(rows, words, strict=True):
            row[:] = np.random.Philox(np.random.SeedSequence(each)).random_raw(count)
        return rows
    generator: np.random.Philox | None = getattr(_OWN, "generator", None)
    if generator is None:
        generator = _OWN.generator = np.random.Philox(0)
        _OWN.start = _start()
    key = _OWN.start["state"]["key"]
    for row, key[:] in zip(rows, _keys(words), strict=True):
        generator.state = _OWN.start
        row[:] = generator.random_raw(count)
    return rows


def _start() -> dict[str, Any]:
    """The state of a new generator, whose key is to be filled in."""
    nothing = np.zeros(4, dtype=np.uint64)
    return {
        "bit_generator": "Philox",
        "state": {"counter": nothing, "key": np.zeros(2, dtype=np.uint64)},
        "buffer": nothing,
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }


def _keys(words: Sequence[Words]) -> Sequence[tuple[int, int]]:
    if len(words) < _FEWEST_AT_ONCE:
        return [_key(each) for each in words]
    low, high = _key(list(np.array(words, dtype=np.uint64).T))
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _key(words: Sequence[Any]) -> tuple[Any, Any]:
    """`SeedSequence(words).generate_state(2, uint64)`, of words of 32 bits; arrays of 64 do too."""
    pool = list(words)
    for place, word in enumerate(words):
        mixed = (word ^ _A[place]) * _A[place + 1] & _WORD
        pool[place] = mixed ^ mixed >> 16
    for source, to, before, after in _MIXED:
        mixed = (pool[source] ^ before) * after & _WORD
        mixed = (_MIX_LEFT * pool[to] - _MIX_RIGHT * (mixed ^ mixed >> 16)) & _WORD
        pool[to] = mixed ^ mixed >> 16
    for place, word in enumerate(pool):
        mixed = (word ^ _B[place]) * _B[place + 1] & _WORD
        pool[place] = mixed ^ mixed >> 16
    return pool[0] | pool[1] << 32, pool[2] | pool[3] << 32


def uniforms_of(raw: NDArray[np.uint64]) -> list[list[float]]:
    """`Generator.random` of each row: in [0, 1), one of each output."""
    values: list[list[float]] = ((raw >> np.uint64(11)) * _OF_A_UNIFORM).tolist()
    return values


def geometric_of(uniform: float, probability: float) -> int:
    """`Generator.geometric`, from 1 on, for a probability of at least `FEWEST_SEARCHED`."""
    drawn, reached, step = 1, probability, probability
    while uniform > reached:
        step *= 1.0 - probability
        reached += step
        drawn += 1
    return drawn


def halves_of(raw: NDArray[np.uint64]) -> list[list[int]]:
    """The outputs of each row as numbers of 32 bits, the lower one of each first."""
    values: list[list[int]] = raw.astype("<u8").view("<u4").tolist()
    return values


def two_of(count: int, halves: Iterator[int]) -> tuple[int, int]:
    """`Generator.choice(count, size=2, replace=False)`. Raises StopIteration without `halves`."""
    first, second = _below(count - 1, halves), _below(count, halves)
    if second == first:
        second = count - 1
    return (first, second) if _below(2, halves) else (second, first)


def _below(count: int, halves: Iterator[int]) -> int:
    """A number below `count`, each as often (Lemire, arXiv:1805.10941)."""
    if count == 1:
        return 0
    product = next(halves) * count
    if product & _WORD < count:
        while product & _WORD < (_WORD + 1 - count) % count:
            product = next(halves) * count
    return product >> 32
