"""Dropout's mask: the words that it compares, beyond 2^32 of them too, and the ends of p."""

from __future__ import annotations

import numpy as np
import pytest

from minires.kernels import dropout, dropout_mask, philox4x32
from minires.kernels.portable.dropout import BLOCK
from tests import reference


def test_philox_is_that_of_the_loops(rng: np.random.Generator) -> None:
    counter = rng.integers(2**32, size=(20, 4)).astype(np.uint32)
    key = (0x12345678, 0x9ABCDEF0)
    assert philox4x32(counter, key).tolist() == [reference.philox(row, key) for row in counter.tolist()]


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 4099])
def test_a_longer_array_begins_alike(size: int) -> None:
    long, short = (dropout_mask(np.empty(n), (1, 2), 0.5) for n in (5000, size))
    np.testing.assert_array_equal(short, long[:size])


def test_blocks_do_not_show() -> None:
    mask = dropout_mask(np.empty(2 * BLOCK + 5), (1, 2), 0.5)
    for i in (0, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 4):
        assert mask[i] == (reference.philox([i // 4, 0, 0, 0], (1, 2))[i % 4] >= 2**31)
    assert (mask[:BLOCK] != mask[BLOCK : 2 * BLOCK]).any()


def test_each_half_of_the_key_matters() -> None:
    masks = {dropout_mask(np.empty(64), key, 0.5).tobytes() for key in ((0, 0), (1, 0), (0, 1), (1, 1))}
    assert len(masks) == 4


def test_the_ends_of_p() -> None:
    x = np.ones(1000)
    assert dropout_mask(x, (1, 2), 0.0).all()
    assert dropout_mask(x, (1, 2), 2.0**-33).all()
    assert not dropout_mask(x, (1, 2), 1 - 2.0**-53).any()
    assert not dropout_mask(x, (1, 2), 1.0).any()


def test_what_stays_is_scaled() -> None:
    y = dropout(np.array([1, np.nan, 3], np.float32), np.array([True, False, True]), 0.75)
    assert (y.tolist(), y.dtype) == ([4, 0, 12], np.float32)
