"""Philox-4x32-10 against the known answers of Random123."""

from __future__ import annotations

import numpy as np
import pytest

from minires.kernels import philox4x32

KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "want"), KNOWN)
def test_known_answers(counter: str, key: str, want: str) -> None:
    k0, k1 = words(key)
    got = philox4x32(np.array([words(counter)], dtype=np.uint32), (k0, k1))
    assert got.dtype == np.uint32
    assert got.tolist() == [words(want)]


def test_rows_are_independent() -> None:
    counter = np.arange(40, dtype=np.uint32).reshape(10, 4)
    alone = [philox4x32(row[None], (1, 2))[0].tolist() for row in counter]
    assert philox4x32(counter, (1, 2)).tolist() == alone
    assert len({tuple(row) for row in alone}) == 10


def test_words_are_uniform() -> None:
    counter = np.zeros((25000, 4), dtype=np.uint32)
    counter[:, 0] = np.arange(25000)
    bits = np.unpackbits(philox4x32(counter, (7, 0)).view(np.uint8))
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(bits.size)  # five standard errors
