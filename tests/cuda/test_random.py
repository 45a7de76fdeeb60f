"""Random words and dropout's masks: the CPU's, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import kernels
from tests.cuda import emulator

LARGEST = 2**32 - 1


def assert_words(cupy: Any, rows: int = 1000, key: tuple[int, int] = (1, LARGEST), rounds: int = 10) -> None:
    counter = np.random.default_rng(0).integers(0, 2**32, (rows, 4), np.uint32)
    counter[0] = LARGEST
    want = kernels.philox4x32(counter, key, rounds)
    with kernels.use(philox4x32="cuda"):
        got = kernels.philox4x32(cupy.asarray(counter), key, rounds)
    np.testing.assert_array_equal(got.get(), want)


def assert_mask(cupy: Any, shape: tuple[int, ...] = (1023,), p: float = 0.3) -> None:
    x = np.zeros(shape, np.float32)
    want = kernels.dropout_mask(x, (5, 6), p)
    with kernels.use(dropout_mask="cuda"):
        got = kernels.dropout_mask(cupy.asarray(x), (5, 6), p)
    assert got.dtype == bool
    np.testing.assert_array_equal(got.get(), want)


@pytest.mark.parametrize("rounds", [0, 1, 7, 10])
@pytest.mark.parametrize("key", [(0, 0), (1, 2), (LARGEST, LARGEST)])
@pytest.mark.parametrize("rows", [1, 255, 1000])
def test_philox(cupy: Any, rows: int, key: tuple[int, int], rounds: int) -> None:
    assert_words(cupy, rows, key, rounds)


@pytest.mark.parametrize("schedule", emulator.SCHEDULES)
@pytest.mark.parametrize("p", [0.0, 0.3, 1 - 2**-33, 1.0])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (1023,), (4, 1024), (257, 33)], ids=str)
def test_masks(cupy: Any, shape: tuple[int, ...], p: float, schedule: str) -> None:
    with emulator.scheduled(schedule):
        assert_mask(cupy, shape, p)
