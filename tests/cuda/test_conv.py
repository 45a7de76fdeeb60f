"""Convolution's CUDA kernels: gathers to the bit, products within their tolerance of the portable ones in float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minires import kernels
from minires.errors import ArgumentError
from minires.kernels import ConvGeometry
from minires.kernels.cuda import conv
from tests.cuda import emulator
from tests.helpers import TOLERANCES, assert_f32

# x (N, H, W, C), w (KH, KW, C, O), geometry; H != W, channels for V = 1 and V = 4, last blocks partly empty
CASES = {
    "3x3": ((2, 9, 7, 8), (3, 3, 8, 12), ConvGeometry((1, 1), (1, 1, 1, 1))),
    "stem": ((3, 7, 9, 3), (3, 3, 3, 5), ConvGeometry((1, 1), (1, 1, 1, 1))),
    "stride 2": ((2, 9, 8, 4), (3, 3, 4, 4), ConvGeometry((2, 2), (1, 1, 1, 1))),
    "1x1": ((2, 5, 6, 7), (1, 1, 7, 4), ConvGeometry()),
    "1x1 stride 2": ((2, 5, 6, 16), (1, 1, 16, 8), ConvGeometry((2, 2))),
    "uneven": ((1, 11, 8, 4), (3, 2, 4, 3), ConvGeometry((2, 3), (2, 0, 1, 3), (2, 1))),
    "holes": ((1, 9, 9, 1), (2, 2, 1, 1), ConvGeometry((3, 3))),
    "whole image": ((2, 4, 5, 4), (4, 5, 4, 6), ConvGeometry()),
    "7x7": ((1, 16, 13, 3), (7, 7, 3, 8), ConvGeometry((2, 2), (3, 3, 3, 3))),
}
every_case = pytest.mark.parametrize("case", CASES)
Arrays = dict[str, Any]


def drawn(case: str) -> Arrays:
    x, w, geometry = CASES[case]
    rng = np.random.default_rng(0)
    y = x[0], *geometry.output_size(x[1:3], w[:2]), w[3]
    cols = np.prod(y[:3]), np.prod(w[:3])
    shapes = {"x": x, "w": w, "bias": w[3:], "add": y, "gy": y, "cols": cols, "into": x[3:]}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def gathers(a: Arrays, case: str) -> Arrays:
    x, w, geometry = CASES[case]
    return {"im2col": kernels.im2col(a["x"], w[:2], geometry), "col2im": kernels.col2im(a["cols"], x, w[:2], geometry)}


def products(a: Arrays, case: str) -> Arrays:
    x, w, geometry = CASES[case]
    return {
        "y": kernels.conv2d(a["x"], a["w"], geometry),
        "finished": kernels.conv2d(a["x"], a["w"], geometry, a["bias"], a["add"], True),
        "with bias": kernels.conv2d(a["x"], a["w"], geometry, bias=a["bias"]),
        "rectified": kernels.conv2d(a["x"], a["w"], geometry, relu=True),
        "gx": kernels.conv2d_grad_input(a["gy"], a["w"], x, geometry),
        "transposed": kernels.conv2d_grad_input(a["gy"], a["w"], x, geometry, a["into"]),
        "gw": kernels.conv2d_grad_weight(a["gy"], a["x"], w, geometry),
    }


def on_device(cupy: Any, made: Callable[[Arrays, str], Arrays], case: str, variant: str = "cuda") -> Arrays:
    named = ("conv2d", "conv2d_grad_input", "conv2d_grad_weight")
    with kernels.use(im2col="cuda", col2im="cuda", **dict.fromkeys(named, variant)):
        results = made({name: cupy.asarray(array) for name, array in drawn(case).items()}, case)
    return {name: array.get() for name, array in results.items()}


def assert_gathers(cupy: Any, case: str) -> None:
    """A copy has nothing to round, and sums are in the portable kernel's order."""
    with kernels.use("portable"):
        want = gathers(drawn(case), case)
    got = on_device(cupy, gathers, case)
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array)


def assert_products(cupy: Any, case: str, variant: str = "cuda") -> None:
    with kernels.use("portable"):
        want = products({name: array.astype(np.float64) for name, array in drawn(case).items()}, case)
    got = on_device(cupy, products, case, variant)
    for name, array in want.items():
        assert_f32(got[name], array, TOLERANCES["gemm" if variant == "cuda" else "gemm_tf32"])


@pytest.mark.parametrize("schedule", emulator.SCHEDULES)
@every_case
def test_gathers(cupy: Any, case: str, schedule: str) -> None:
    with emulator.scheduled(schedule):
        assert_gathers(cupy, case)


@pytest.mark.parametrize("column_bytes", [1, 20_000, 1 << 28])
@pytest.mark.parametrize("variant", ["cuda", "tf32"])
@every_case
def test_products(cupy: Any, case: str, variant: str, column_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks of an image, of some, of all."""
    monkeypatch.setattr(conv, "COLUMN_BYTES", column_bytes)
    assert_products(cupy, case, variant)


@pytest.mark.parametrize("variant", ["cuda", "tf32"])
def test_precision_decides(emulated: Counter[str], variant: str) -> None:
    """Tensor cores only where they are asked for; then everywhere."""
    import cupy

    arrays = {name: cupy.asarray(array) for name, array in drawn("3x3").items()}
    with kernels.precision("tf32" if variant == "tf32" else "fast"):
        got = products(arrays, "3x3")
    want = on_device(cupy, products, "3x3", variant)
    other = on_device(cupy, products, "3x3", "cuda" if variant == "tf32" else "tf32")
    for name, array in got.items():
        np.testing.assert_array_equal(array.get(), want[name])
        assert np.any(want[name] != other[name])


def test_groups_are_portable(cupy: Any, rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((2, 5, 6, 4)).astype("f"), rng.standard_normal((3, 3, 2, 6)).astype("f")
    geometry = ConvGeometry((1, 1), (1, 1, 1, 1), groups=2)
    with kernels.use("portable"):
        want = kernels.conv2d(x, w, geometry)
    np.testing.assert_allclose(kernels.conv2d(cupy.asarray(x), cupy.asarray(w), geometry).get(), want, atol=1e-5)
    message = "one group of channels, images that are not empty"
    with kernels.use(conv2d="cuda"), pytest.raises(ArgumentError, match=message):
        kernels.conv2d(cupy.asarray(x), cupy.asarray(w), geometry)


def test_what_a_layer_launches(emulated: Counter[str]) -> None:
    import cupy

    arrays = {name: cupy.asarray(array) for name, array in drawn("3x3").items()}
    x, w, geometry = CASES["3x3"]
    emulated.clear()
    kernels.conv2d(arrays["x"], arrays["w"], geometry)
    assert +emulated == {"launch": 1, "launch of im2col": 1, "gemm": 1}
    emulated.clear()
    kernels.conv2d_grad_input(arrays["gy"], arrays["w"], x, geometry)
    kernels.conv2d_grad_weight(arrays["gy"], arrays["x"], w, geometry)
    assert +emulated == {"launch": 2, "launch of im2col": 1, "launch of col2im": 1, "gemm": 2}
