"""Pooling's CUDA kernels against the portable ones, to the bit."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from minires import kernels
from minires.kernels import ConvGeometry
from tests.cuda import emulator
from tests.cuda.test_norm import placed

# shape, window, and how it moves. Some with pixels that no window holds, one with windows that lie on padding alone
CASES = [
    ((1, 3, 5, 1), (2, 2), ConvGeometry()),
    ((2, 9, 7, 3), (3, 3), ConvGeometry((2, 2), (1, 1, 1, 1))),
    ((1, 8, 11, 4), (2, 2), ConvGeometry((2, 2))),
    ((2, 6, 5, 7), (3, 2), ConvGeometry((1, 2), (1, 0, 1, 1))),
    ((1, 10, 9, 64), (3, 3), ConvGeometry((2, 2), (1, 1, 1, 1))),
    ((3, 13, 12, 1), (5, 4), ConvGeometry((3, 2), (2, 1, 0, 2), (2, 1))),
    ((2, 12, 15, 4), (2, 3), ConvGeometry((1, 1), (0, 1, 1, 0), (3, 2))),
    ((1, 19, 17, 8), (16, 16), ConvGeometry((1, 2), (3, 0, 8, 5))),
    ((2, 6, 8, 12), (1, 1), ConvGeometry((3, 2))),
    ((1, 4, 3, 4), (2, 2), ConvGeometry((1, 1), (4, 3, 2, 5))),
]
SIZES = [  # of images, and of what they become
    ((2, 4, 4, 64), (1, 1)),
    ((1, 7, 5, 3), (2, 3)),
    ((2, 5, 7, 7), (5, 7)),
    ((3, 9, 4, 4), (4, 9)),
    ((1, 3, 2, 8), (7, 5)),
    ((5, 11, 13, 1), (3, 1)),
]
ON_GPU = dict.fromkeys(
    [
        "max_pool2d",
        "max_pool2d_grad",
        "avg_pool2d",
        "avg_pool2d_grad",
        "adaptive_avg_pool2d",
        "adaptive_avg_pool2d_grad",
    ],
    "cuda",
)
KINDS = ["normal", "ties", "equal", "lowest", "any"]
cases = pytest.mark.parametrize(("shape", "window", "geometry"), CASES)
sizes = pytest.mark.parametrize(("shape", "size"), SIZES)
kinds = pytest.mark.parametrize("kind", KINDS)
alignments = pytest.mark.parametrize("aligned", [True, False])


def drawn(shape: tuple[int, ...], kind: str = "normal") -> np.ndarray:
    rng = np.random.default_rng(0)
    if kind == "normal":
        return rng.standard_normal(shape).astype(np.float32)
    choices = {"ties": [-1, -0.0, 0, 1], "equal": [-2], "lowest": [-np.inf]}
    return rng.choice(choices.get(kind, [-np.inf, -1, -0.0, 0, 1, np.inf, np.nan]), shape).astype(np.float32)


def output_shape(shape: tuple[int, ...], window: tuple[int, int], geometry: ConvGeometry) -> tuple[int, ...]:
    return shape[0], *geometry.output_size(shape[1:3], window), shape[3]


def counts(shape: tuple[int, ...], window: tuple[int, int], geometry: ConvGeometry) -> list[Any]:
    """What a sum is divided by: a number, an array of one, an array of one for each window."""
    each = np.random.default_rng(1).integers(1, 9, (*output_shape(shape, window, geometry)[1:3], 1)).astype(np.float32)
    return [7, 2.5, np.full((1, 1, 1), 3, np.float32), each]


def assert_twin(cupy: Any, kernel: str, *arguments: Any, aligned: bool = True) -> None:
    """The CUDA kernel gives what the portable one does, also the sign of each 0."""
    function = getattr(kernels, kernel)
    with kernels.use("portable"), kernels.quiet():
        want = function(*arguments)
    with kernels.use(**ON_GPU):
        on_device = [placed(cupy, a, aligned) if isinstance(a, np.ndarray) else a for a in arguments]
        got = function(*on_device)
    pairs = zip(got, want, strict=True) if isinstance(want, tuple) else [(got, want)]
    for array, expected in pairs:
        value = array.get()
        assert value.dtype == expected.dtype
        assert value.shape == expected.shape
        np.testing.assert_array_equal(value, expected)
        there = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(value[there]), np.signbit(expected[there]))


@alignments
@kinds
@cases
def test_max_pool(
    cupy: Any, shape: tuple[int, ...], window: tuple[int, int], geometry: ConvGeometry, kind: str, aligned: bool
) -> None:
    """The first of equals; the largest is NaN where there is one; padding never wins, not even over -inf."""
    assert_twin(cupy, "max_pool2d", drawn(shape, kind), window, geometry, aligned=aligned)


@alignments
@kinds
@cases
def test_max_pool_grad(
    cupy: Any, shape: tuple[int, ...], window: tuple[int, int], geometry: ConvGeometry, kind: str, aligned: bool
) -> None:
    """Of windows that share their winners, and of any gradients."""
    with kernels.use("portable"):
        _, index = kernels.max_pool2d(drawn(shape, "ties"), window, geometry)
    gy = drawn(index.shape, kind)
    assert_twin(cupy, "max_pool2d_grad", gy, index, shape, window, geometry, aligned=aligned)


@alignments
@kinds
@cases
def test_avg_pool(
    cupy: Any, shape: tuple[int, ...], window: tuple[int, int], geometry: ConvGeometry, kind: str, aligned: bool
) -> None:
    x, gy = drawn(shape, kind), drawn(output_shape(shape, window, geometry), kind)
    for count in counts(shape, window, geometry):
        assert_twin(cupy, "avg_pool2d", x, window, geometry, count, aligned=aligned)
        assert_twin(cupy, "avg_pool2d_grad", gy, shape, window, geometry, count, aligned=aligned)


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 0, 0, 1)])
def test_a_mean_of_negative_zeros(cupy: Any, pads: tuple[int, int, int, int]) -> None:
    """It is -0, unless padding is among them, which is +0."""
    x = np.full((1, 4, 6, 4), -0.0, np.float32)
    assert_twin(cupy, "avg_pool2d", x, (2, 2), ConvGeometry((2, 2), pads), 4)


@alignments
@kinds
@sizes
def test_adaptive_avg_pool(cupy: Any, shape: tuple[int, ...], size: tuple[int, int], kind: str, aligned: bool) -> None:
    gy = drawn((shape[0], *size, shape[3]), kind)
    assert_twin(cupy, "adaptive_avg_pool2d", drawn(shape, kind), size, aligned=aligned)
    assert_twin(cupy, "adaptive_avg_pool2d_grad", gy, shape, aligned=aligned)


@pytest.mark.parametrize("schedule", emulator.SCHEDULES)
@pytest.mark.parametrize("channels", [3, 8])
def test_each_schedule_gives_the_same(emulated: Counter[str], channels: int, schedule: str) -> None:
    """Over several blocks, the last of which is not full."""
    import cupy

    (_, *area, _), window, geometry = CASES[1]
    shape = 9, *area, channels
    with emulator.scheduled(schedule, 1):
        test_max_pool_grad(cupy, shape, window, geometry, "normal", True)
        test_max_pool(cupy, shape, window, geometry, "any", True)
        test_avg_pool(cupy, shape, window, geometry, "normal", True)
        test_adaptive_avg_pool(cupy, shape, (4, 5), "normal", True)


def test_what_each_launches(emulated: Counter[str]) -> None:
    """Without being told to: its own kernel, no other, and nothing that waits or comes from the host."""
    import cupy

    shape, window, geometry = CASES[4]
    x, count = cupy.asarray(drawn(shape)), cupy.asarray(counts(shape, window, geometry)[-1])
    emulated.clear()
    y, index = kernels.max_pool2d(x, window, geometry)
    kernels.max_pool2d_grad(y, index, shape, window, geometry)
    kernels.avg_pool2d(x, window, geometry, count)
    kernels.avg_pool2d_grad(y, shape, window, geometry, count)
    kernels.adaptive_avg_pool2d(x, (2, 3))
    kernels.adaptive_avg_pool2d_grad(y, shape)
    assert emulated == {"launch": 6} | {f"launch of {name}": 1 for name in ON_GPU}


def test_what_stays_portable(emulated: Counter[str]) -> None:
    """Windows of more places than a byte counts, images without pixels, counts that broadcast in other ways."""
    import cupy

    large, one = ConvGeometry(padding=(8, 8, 8, 8)), ConvGeometry()
    x = drawn((1, 9, 9, 4))
    with kernels.use("portable"):
        want, places = kernels.max_pool2d(x, (16, 17), large)
        want_gx = kernels.max_pool2d_grad(want, places, x.shape, (16, 17), large)
    y, index = kernels.max_pool2d(cupy.asarray(x), (16, 17), large)
    assert index.dtype == np.int32
    np.testing.assert_array_equal(y.get(), want)
    np.testing.assert_array_equal(index.get(), places)
    np.testing.assert_array_equal(kernels.max_pool2d_grad(y, index, x.shape, (16, 17), large).get(), want_gx)
    empty = cupy.asarray(x[:0])
    assert kernels.max_pool2d(empty, (2, 2), one)[0].shape == (0, 8, 8, 4)
    assert kernels.avg_pool2d(empty, (2, 2), one, 4).shape == (0, 8, 8, 4)
    assert kernels.adaptive_avg_pool2d(empty, (2, 2)).shape == (0, 2, 2, 4)
    assert kernels.adaptive_avg_pool2d_grad(empty, (0, 5, 5, 4)).shape == (0, 5, 5, 4)
    channels = cupy.asarray(np.arange(1, 5, dtype=np.float32).reshape(1, 1, 4))
    y = kernels.avg_pool2d(cupy.asarray(x), (1, 1), one, channels)
    np.testing.assert_array_equal(y.get(), x / np.arange(1, 5, dtype=np.float32))
    assert not emulated["launch"]
