"""Sums over leading axes against exact ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from minires import kernels
from tests.cuda import emulator
from tests.helpers import TOLERANCES, assert_f32

CASES = [((2, 1), 1), ((100, 7, 9), 2), ((5, 6, 64), 1), ((3, 5, 7, 12), 3), ((4099, 4), 1), ((1, 260), 1)]


def assert_sums(cupy: Any, shape: tuple[int, ...], axes: int, keepdims: bool = False) -> None:
    x = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
    first = tuple(range(axes))
    with kernels.use(sum_axes="cuda"):
        got = kernels.sum_axes(cupy.asarray(x), first, keepdims).get()
    assert_f32(got, x.sum(first, np.float64, keepdims=keepdims), TOLERANCES["sum"])


@pytest.mark.parametrize("schedule", emulator.SCHEDULES)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(("shape", "axes"), CASES, ids=str)
def test_sums(cupy: Any, shape: tuple[int, ...], axes: int, keepdims: bool, schedule: str) -> None:
    with emulator.scheduled(schedule):
        assert_sums(cupy, shape, axes, keepdims)


def test_other_axes_are_portable(emulated: Counter[str]) -> None:
    import cupy

    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for axes in ((1,), (0, 2), (0, 1, 2), (2,)):
        got = kernels.sum_axes(cupy.asarray(x), axes)
        np.testing.assert_array_equal(got.get(), x.sum(axes))
    assert kernels.sum_axes(cupy.asarray(x[:0]), (0,)).get().tolist() == np.zeros((3, 4)).tolist()
    assert emulated["launch"] == 0
    kernels.sum_axes(cupy.asarray(x), (1, 0))
    assert emulated["launch"] == 2


def test_a_grid_has_an_end(emulated: Counter[str]) -> None:
    """65535 tiles of 32 columns; what is wider stays portable."""
    import cupy

    sum_axes = kernels.registry["sum_axes"].find("cuda")
    assert sum_axes.takes((cupy.zeros((2, 65535 * 32), np.float32), (0,)), {})
    assert not sum_axes.takes((cupy.zeros((2, 65535 * 32 + 1), np.float32), (0,)), {})
