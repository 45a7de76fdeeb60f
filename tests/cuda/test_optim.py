"""SGD over all parameters in one launch: the portable rule, to the bit."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest

from minires import Tensor, device, kernels, optim
from minires.kernels.cuda import optim as launcher
from tests.cuda import emulator

SHAPES = [(3, 5), (4096,), (4097,), (), (0,), (64, 129), (1,)]
SETTINGS = list(product((0.0, 0.9), (0.0, 0.3), (0.0, 0.1), (False, True), (False, True)))


def drawn(count: int) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(0)
    shapes = [SHAPES[i % len(SHAPES)] for i in range(count)]
    return [[np.asarray(rng.standard_normal(shape)).astype(np.float32) for shape in shapes] for _ in range(3)]


def step(lists: list[list[Any]], settings: tuple[Any, ...]) -> list[Any]:
    weights, gradients, velocities = lists
    kernels.sgd_foreach_(weights, gradients, velocities if settings[0] else None, 0.02, *settings)
    return weights + velocities


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_settings(cupy: Any, settings: tuple[Any, ...]) -> None:
    with kernels.use("portable"):
        want = step(drawn(7), settings)
    with kernels.use(sgd_foreach_="cuda"):
        got = step([[cupy.asarray(a) for a in arrays] for arrays in drawn(7)], settings)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a.get(), b)


@pytest.mark.parametrize("schedule", emulator.SCHEDULES)
@pytest.mark.parametrize("count", [1, 95, 96, 97, 200])
def test_any_number_of_parameters(emulated: Counter[str], count: int, schedule: str) -> None:
    import cupy

    with kernels.use("portable"):
        want = step(drawn(count), SETTINGS[-4])
    lists = [[cupy.asarray(a) for a in arrays] for arrays in drawn(count)]
    emulated.clear()
    with emulator.scheduled(schedule):
        got = step(lists, SETTINGS[-4])
    filled = sum(a.size > 0 for a in lists[0])
    assert emulated == {"launch": -(-filled // 96), "launch of sgd_foreach": -(-filled // 96)}
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a.get(), b)


def test_the_table_fits_a_kernels_arguments() -> None:
    """Of 4 KB, on GPUs before compute capability 7.0 and with CUDA before 12.1 everywhere."""
    assert launcher._TABLE.itemsize + launcher._SETTINGS.itemsize <= 4096
    assert (launcher._TABLE.itemsize % 8, launcher._SETTINGS.itemsize % 8) == (0, 0)


@pytest.mark.parametrize("make", [optim.SGD, optim.AdamW])
def test_optimizers(cupy: Any, make: Any) -> None:
    """Three steps, of which the first has no velocity yet, and a parameter that gets its gradient late."""
    settings = {"momentum": 0.9, "dampening": 0.5} if make is optim.SGD else {}
    results = []
    for place in ("cpu", "cuda"):
        rng = np.random.default_rng(0)
        params = [Tensor(rng.standard_normal(s).astype("f"), requires_grad=True).to(place).detach() for s in SHAPES[:3]]
        optimizer = make(params, lr=0.1, weight_decay=0.01, **settings)
        for number in range(3):
            for p in params[number == 0 :]:
                p.grad = Tensor(np.asarray(rng.standard_normal(p.shape)).astype("f")).to(place)
            optimizer.step()
        assert all(p.device.startswith(place) for p in params)
        results.append([device.to_device(p.data, "cpu") for p in params])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
