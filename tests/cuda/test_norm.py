"""Batch norm's CUDA kernels against the portable ones in float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from minires import kernels
from minires.device import array_module
from minires.kernels.cuda import compiler
from tests import reference
from tests.cuda import emulator
from tests.helpers import TOLERANCES, assert_f32

# Of one row, of channels for V = 1 and for V = 4; of one and of several tiles, of one and of many parts
SHAPES = [(2, 1), (1, 5), (37, 7), (20, 70), (1000, 12), (700, 64), (130, 512), (9, 260), (4097, 4)]
ON_GPU = dict.fromkeys(["batch_norm_statistics", "batch_norm_apply", "batch_norm_grad", "batch_norm_relu_grad"], "cuda")


def drawn(shape: tuple[int, int], ratio: float = 0.0) -> dict[str, np.ndarray]:
    """What the kernels take. The statistics are not x's own, with which gradients would cancel to nearly nothing."""
    rng, c = np.random.default_rng(0), shape[1]
    x, gy, add = (rng.standard_normal(shape) for _ in range(3))
    x += ratio
    hi = np.float32(x.mean(axis=0) + rng.standard_normal(c))
    given = {
        "x": x, "gy": gy, "add": add, "y": np.maximum(rng.standard_normal(shape), 0), "hi": hi,
        "lo": rng.uniform(-0.5, 0.5, c) * np.spacing(hi), "invstd": rng.uniform(0.5, 2, c),
        "gamma": rng.standard_normal(c), "beta": rng.standard_normal(c),
    }  # fmt: skip
    return {name: array.astype(np.float32) for name, array in given.items()}


def placed(cupy: Any, array: np.ndarray, aligned: bool = True) -> Any:
    """An array on the device, or one that begins 4 bytes behind where vectors may."""
    if aligned:
        return cupy.asarray(array)
    behind = cupy.empty(array.size + 1, array.dtype)[1:].reshape(array.shape)
    behind[...] = cupy.asarray(array)
    return behind


def results(given: Mapping[str, Any]) -> dict[str, Any]:
    """All that the kernels make of what they are given, but for statistics."""
    x, gy, y, add, gamma, beta = (given[name] for name in ("x", "gy", "y", "add", "gamma", "beta"))
    statistics = given["hi"], given["lo"], given["invstd"]
    made = {
        f"y with {'add' if z is add else 'nothing'}, relu={relu}": kernels.batch_norm_apply(
            x, *statistics, gamma, beta, z, relu
        )
        for z in (None, add)
        for relu in (False, True)
    }
    made |= kernels.batch_norm_grad(gy, x, *statistics, gamma)._asdict()
    for keep in (False, True):
        gradients, g = kernels.batch_norm_relu_grad(gy, y, x, *statistics, gamma, keep)
        assert (g is not None) == keep
        made |= {f"{name}, keep={keep}": array for name, array in gradients._asdict().items()}
    return made | {"g": g}


def on_device(cupy: Any, given: Mapping[str, np.ndarray], aligned: bool = True) -> dict[str, np.ndarray]:
    """The results of the CUDA kernels."""
    with kernels.use(**ON_GPU):
        made = results({name: placed(cupy, array, aligned) for name, array in given.items()})
    return {name: array.get() for name, array in made.items()}


def assert_results(got: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> None:
    """The results are what the portable kernels make of the same numbers in float64."""
    with kernels.use("portable"):
        want = results({name: array.astype(np.float64) for name, array in given.items()})
    assert got.keys() == want.keys()
    for name, array in got.items():
        row = "exact" if name == "g" else "norm_sum" if name.startswith(("weight", "bias")) else "norm"
        assert_f32(array, want[name], TOLERANCES[row])


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_results(cupy: Any, shape: tuple[int, int], aligned: bool) -> None:
    given = drawn(shape)
    assert_results(on_device(cupy, given, aligned), given)


@pytest.mark.parametrize("ratio", [1e3, 1e6])
@pytest.mark.parametrize("shape", [(37, 7), (1000, 12)])
def test_results_far_from_0(cupy: Any, shape: tuple[int, int], ratio: float) -> None:
    given = drawn(shape, ratio)
    assert_results(on_device(cupy, given), given)


@pytest.mark.parametrize("parts", [1, 3])
def test_results_where_parts_are_few(cupy: Any, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where rows are so many that each part gets more of them than a thread otherwise does."""
    monkeypatch.setattr(compiler, "PARTS", parts)
    for shape in ((1000, 12), (999, 7)):
        given = drawn(shape)
        assert_results(on_device(cupy, given), given)
        test_statistics(cupy, shape, 0.0, True)


@pytest.mark.parametrize("ratio", [0.0, 1e3, 1e6])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_statistics(cupy: Any, shape: tuple[int, int], ratio: float, aligned: bool) -> None:
    """What the kernels on the CPU promise, in one pass."""
    assert_statistics(cupy, drawn(shape, ratio)["x"], aligned)


@pytest.mark.parametrize("outlier", [-1e2, 1e4, 1e6])
@pytest.mark.parametrize("shape", [(37, 7), (4097, 4)])
def test_statistics_where_the_first_row_is_far(cupy: Any, shape: tuple[int, int], outlier: float) -> None:
    """The sums are of what is left when that row is taken away."""
    x = drawn(shape, 3.0)["x"]
    x[0] += np.float32(outlier)
    assert_statistics(cupy, x)


def assert_statistics(cupy: Any, x: np.ndarray, aligned: bool = True) -> None:
    means, variances = reference.moments(x.astype(np.float64))
    with kernels.use(**ON_GPU):
        made = kernels.batch_norm_statistics(placed(cupy, x, aligned), 1e-2)
    hi, lo, variance, invstd = (array.get() for array in made)
    assert {a.dtype for a in (hi, lo, variance, invstd)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(hi, means.astype(np.float32))
    np.testing.assert_allclose(hi.astype(np.float64) + lo, means, rtol=1e-13, atol=2e-7)
    np.testing.assert_allclose(variance, variances, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(invstd, 1 / np.sqrt(variances + 1e-2), rtol=1e-6)


def everything(cupy: Any, given: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """All results, statistics too, to the bit."""
    with kernels.use(**ON_GPU):
        statistics = kernels.batch_norm_statistics(cupy.asarray(given["x"]), 1e-5)._asdict()
    own = {name: array.get().tobytes() for name, array in statistics.items()}
    return own | {name: array.tobytes() for name, array in on_device(cupy, given).items()}


SCHEDULED = [(37, 7), (700, 64), (1000, 12)]


@pytest.mark.parametrize("shape", SCHEDULED)
def test_each_launch_gives_the_same(cupy: Any, shape: tuple[int, int]) -> None:
    given = drawn(shape)
    first = everything(cupy, given)
    for _ in range(2):
        assert everything(cupy, given) == first


@pytest.mark.parametrize("schedule", emulator.SCHEDULES)
@pytest.mark.parametrize("shape", SCHEDULED)
def test_each_schedule_gives_the_same(emulated: Counter[str], shape: tuple[int, int], schedule: str) -> None:
    """In whatever order threads, warps and blocks run."""
    import cupy

    given = drawn(shape)
    first = everything(cupy, given)
    with emulator.scheduled(schedule, 1):
        assert everything(cupy, given) == first


@pytest.mark.parametrize("shape", [(37, 7), (700, 64)])
@pytest.mark.parametrize("row", [0, 5])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_bad_channel(cupy: Any, shape: tuple[int, int], row: int, value: float) -> None:
    """It stays the only one; y, variance and invstd are NaN where the portable kernels' are."""
    good = drawn(shape)
    bad = {**good, "x": good["x"].copy()}
    bad["x"][row, 1] = value
    others = np.arange(shape[1]) != 1

    def normalised(x: Any, relu: bool) -> list[Any]:
        hi, lo, variance, invstd = kernels.batch_norm_statistics(x, 1e-5)
        one = array_module(x).ones(shape[1], np.float32)
        return [kernels.batch_norm_apply(x, hi, lo, invstd, one, one, None, relu), variance, invstd]

    for relu in (False, True):
        with kernels.use("portable"), np.errstate(invalid="ignore"):
            want = normalised(bad["x"], relu)
        with kernels.use(**ON_GPU):
            got = normalised(cupy.asarray(bad["x"]), relu)
            clean = normalised(cupy.asarray(good["x"]), relu)
        for g, w, c in zip(got, want, clean, strict=True):
            np.testing.assert_array_equal(np.isnan(g.get()), np.isnan(w))
            np.testing.assert_array_equal(g.get()[..., others], c.get()[..., others])
    whole = on_device(cupy, good)
    for name, array in on_device(cupy, bad).items():
        np.testing.assert_array_equal(array[..., others], whole[name][..., others])


@pytest.mark.parametrize("channels", [1, 7, 64, 260, 300])
def test_running_averages(cupy: Any, rng: np.random.Generator, channels: int) -> None:
    """The portable ones, to the bit."""
    running, batch = rng.standard_normal((2, channels)).astype(np.float32)
    got = cupy.asarray(running)
    kernels.running_average_(running, batch, 0.1, 129 / 128)
    with kernels.use(running_average_="cuda"):
        kernels.running_average_(got, cupy.asarray(batch), 0.1, 129 / 128)
    np.testing.assert_array_equal(got.get(), running)


def test_a_relu_keeps_nan(cupy: Any) -> None:
    """In y, and in the gradient of where y is NaN, as on the CPU."""
    given = drawn((37, 8))
    given["add"][3, 2] = given["y"][3, 2] = np.nan
    got = on_device(cupy, given)
    assert np.isnan(got["y with add, relu=True"][3, 2])
    assert np.isnan(got["y with add, relu=True"]).sum() == 1
    assert got["g"][3, 2] == given["gy"][3, 2]


def test_what_a_step_launches(emulated: Counter[str]) -> None:
    """Without being told to: these kernels, no others, and nothing that waits or comes from the host."""
    import cupy

    given = {name: cupy.asarray(array) for name, array in drawn((37, 8)).items()}
    x, gamma, beta = given["x"], given["gamma"], given["beta"]
    emulated.clear()
    hi, lo, _, invstd = kernels.batch_norm_statistics(x, 1e-5)
    y = kernels.batch_norm_apply(x, hi, lo, invstd, gamma, beta, None, True)
    kernels.batch_norm_grad(given["gy"], x, hi, lo, invstd, gamma)
    kernels.batch_norm_relu_grad(given["gy"], y, x, hi, lo, invstd, gamma, True)
    assert emulated == {
        "launch": 9, "launch of batch_norm_sums": 1, "launch of batch_norm_finish": 1, "launch of batch_norm_apply": 1,
        "launch of batch_norm_grad_sums": 2, "launch of batch_norm_grad_finish": 2, "launch of batch_norm_grad": 2,
    }  # fmt: skip
