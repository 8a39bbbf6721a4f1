"""What is drawn without numpy's objects is what they draw."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from distributed_pretrain.data.augmentation_parameters import _UNIFORMS, SampleDraws
from distributed_pretrain.data.philox import raw_words, uniforms_of

WORDS = [
    *(
        (seed, epoch, position, 0x5A)
        for seed in (0, 7)
        for epoch in (0, 3)
        for position in range(9)
    ),
    (2**32 - 1, 2**32 - 1, 2**32 - 1, 1),
    (2**32, 1, 2, 3),
    (2**70 + 5, 0, 0, 0),
]


def generator_of(words: tuple[int, int, int, int]) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


@pytest.mark.parametrize("words", WORDS)
def test_words_and_uniforms_are_numpys(words: tuple[int, int, int, int]) -> None:
    raw = raw_words([words], 70)
    assert raw.tolist() == [generator_of(words).bit_generator.random_raw(70).tolist()]
    assert uniforms_of(raw) == [generator_of(words).random(70).tolist()]


@pytest.mark.parametrize("count", [1, 7, 8, 18])
def test_words_of_many_are_those_of_each(count: int) -> None:
    several = WORDS[:count]
    raw = raw_words(several, 5)
    expected = [generator_of(words).bit_generator.random_raw(5).tolist() for words in several]
    assert raw.tolist() == expected


def test_threads_have_streams_of_their_own() -> None:
    wrong: list[int] = []

    def draw(first: int) -> None:
        for position in range(first, first + 200):
            words = (0, 0, position, 1)
            if raw_words([words], 5).tolist() != [
                generator_of(words).bit_generator.random_raw(5).tolist()
            ]:
                wrong.append(position)

    threads = [threading.Thread(target=draw, args=(1000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("probability", [0.1, 1 / 3, 0.4, 0.9, 1.0])
def test_swaps_are_numpys(probability: float) -> None:
    for position in range(400):
        sentences = tuple(f"sentence {n}" for n in range(2 + position % 11))
        random = generator_of((3, 1, position, 0x5A))
        random.random(_UNIFORMS)
        expected = list(sentences)
        for _ in range(int(random.geometric(probability)) - 1):
            first, second = random.choice(len(expected), size=2, replace=False)
            expected[first], expected[second] = expected[second], expected[first]
        draws = SampleDraws.of(seed=3, epoch=1, position=position)
        assert draws.swap_sentences(sentences, probability) == tuple(expected)
