"""Which variant runs, and what is refused."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minires import kernels
from minires.errors import ArgumentError, DeviceError
from minires.kernels import Accepts, ConvGeometry, registry, use


class GpuArray:
    """As much of a CuPy array as the dispatcher looks at."""

    dtype, shape = np.dtype(np.float32), (2,)
    flags = SimpleNamespace(c_contiguous=True)

    def __init__(self, index: int = 0) -> None:
        self.device = SimpleNamespace(id=index)


GpuArray.__module__ = "cupy"


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A kernel with a variant for contiguous float32 on the CPU and one for GPUs; each returns its name."""
    monkeypatch.setitem(sys.modules, "cupy", ModuleType("cupy"))

    def double(x: Any, scale: Any = 1) -> str:
        return "portable"

    def double_fast(x: Any, scale: Any = 1) -> str:
        return "fast"

    def double_gpu(x: Any, scale: Any = 1) -> str:
        return "gpu"

    entry = kernels.kernel(double)
    kernels.variant(entry, Accepts("cpu", ("float32",)))(double_fast)
    kernels.variant(entry, Accepts("cuda"))(double_gpu)
    yield entry
    del registry["double"]


X = np.ones((4, 6), dtype=np.float32)


def test_the_first_variant_that_accepts_runs(double: Any) -> None:
    assert double(X) == double(x=X) == double(X, scale=X) == "fast"
    assert double(GpuArray()) == double(GpuArray(1)) == "gpu"


@pytest.mark.parametrize("x", [X.astype(np.float64), X.T, X[:, ::2]])
def test_portable_runs_where_no_variant_accepts(double: Any, x: np.ndarray) -> None:
    assert double(x) == double(X, x) == double(X, scale=x) == "portable"


def test_contiguity_may_not_matter() -> None:
    assert Accepts("cpu", contiguous=False)([X.T])
    assert not Accepts("cpu")([X.T])


def test_use_forces_within_its_block(double: Any) -> None:
    with use("portable"):
        assert double(X) == "portable"
        with use(double="fast"):
            assert double(X) == "fast"
        assert double(X) == "portable"
    assert double(X) == "fast"


def test_use_is_undone_after_an_error(double: Any) -> None:
    with pytest.raises(KeyError), use("portable"):
        raise KeyError
    assert double(X) == "fast"


def test_a_forced_variant_that_cannot_take_its_arguments_raises(double: Any) -> None:
    message = r"kernel double: variant 'fast' was forced, but takes .*float32.*, not float64 \(4, 6\) on cpu"
    with use(double="fast"), pytest.raises(ArgumentError, match=message):
        double(X.astype(np.float64))
    with use(double="gpu"), pytest.raises(ArgumentError, match="variant 'gpu' was forced"):
        double(X)


def test_unknown_names_are_refused(double: Any) -> None:
    with pytest.raises(ArgumentError, match=r"no kernel named treble; there are .*double"), use(treble="fast"):
        pass
    with pytest.raises(ArgumentError, match=r"use\('fast'\): only 'portable' exists for every kernel"), use("fast"):
        pass
    with pytest.raises(ArgumentError, match=r"no variant 'slow': it has portable, fast, gpu"), use(double="slow"):
        pass


def test_portable_inside_a_forced_variant_is_portable(double: Any) -> None:
    with use(double="fast"), use("portable"):
        assert registry["double"].choose((X,), {}).name == "portable"


@pytest.mark.parametrize("others", [(X,), (GpuArray(1),)], ids=["cpu", "cuda:1"])
def test_arrays_of_two_devices_are_refused(double: Any, others: tuple[Any]) -> None:
    message = r"double: arrays on .* and .*; move them to one with \.to\(device\)"
    with pytest.raises(DeviceError, match=message):
        double(GpuArray(), *others)
    with pytest.raises(DeviceError, match=message):
        double(GpuArray(), scale=others[0])


def test_a_variant_of_another_signature_or_name_is_refused(double: Any) -> None:
    def double_other(x: Any) -> None: ...
    def treble_other(x: Any, scale: Any = 1) -> None: ...

    for function in (double_other, treble_other):
        with pytest.raises(ArgumentError, match=r"is no variant of double\(x"):
            kernels.variant(double, Accepts("cpu"))(function)


@pytest.mark.parametrize("name", sorted(registry))
def test_all_variants_share_one_signature(name: str) -> None:
    want = inspect.signature(registry[name].portable.function)
    for variant in registry[name].variants:
        got = inspect.signature(variant.function)
        assert [str(p) for p in got.parameters.values()] == [str(p) for p in want.parameters.values()]
        assert got.return_annotation == want.return_annotation
    assert want.return_annotation is not inspect.Parameter.empty


def test_a_variant_may_take_float16_itself(double: Any) -> None:
    def double_half(x: Any, scale: Any = 1) -> str:
        return x.dtype.name

    kernels.variant(double, Accepts("cpu", ("float16",)))(double_half)
    assert double(X.astype(np.float16)) == "float16"


def test_float16_runs_in_the_variant_for_float32(double: Any) -> None:
    half = X.astype(np.float16)
    assert double(half) == double(X, scale=half) == "fast"
    with use("portable"):
        assert double(half) == "portable"


def test_float16_is_widened_however_it_is_passed() -> None:
    x, target = np.float16([5]), np.float16([0.001])
    once = np.float16((float(x[0]) - float(target[0])) ** 2)
    assert (x - target) ** 2 != once
    for call in (
        lambda: kernels.squared_error(x, target),
        lambda: kernels.squared_error(x, target=target),
        lambda: kernels.squared_error(target=target, x=x),
    ):
        assert call() == once


@pytest.mark.parametrize("kept", [np.float16, np.float32])
def test_in_place_kernels_write_float16_and_leave_read_only_arrays(kept: Any) -> None:
    w, g = np.ones(3, np.float16), np.broadcast_to(np.float16(2), (3,))
    velocity = np.zeros(3, kept)
    kernels.sgd_(w, g, velocity=velocity, lr=0.25, momentum=0.5, dampening=0, weight_decay=0, nesterov=False,
                 maximize=False)  # fmt: skip
    assert (w.tolist(), velocity.tolist()) == ([0.5] * 3, [2] * 3)


@pytest.mark.parametrize(
    ("dtype", "order", "name"), [("f4", "C", "blocked"), ("f4", "F", "portable"), ("f2", "C", "portable")]
)
def test_batch_norm_runs_in_blocks_where_memory_is_contiguous(dtype: str, order: Any, name: str) -> None:
    x = np.ones((6, 4), dtype=dtype, order=order)
    assert registry["batch_norm_statistics"].choose((x, 1e-5), {}).name == name


@pytest.mark.parametrize(("dtype", "portable"), [("f4", False), ("f8", False), ("f2", True)])
def test_convolution_has_a_variant_for_any_memory_layout(dtype: str, portable: bool) -> None:
    x, w = np.ones((2, 5, 6, 3), dtype=dtype), np.ones((3, 3, 3, 4), dtype=dtype)
    for images in (x, x.swapaxes(1, 2), x[:, ::2]):
        assert (registry["conv2d"].choose((images, w, ConvGeometry()), {}).name == "portable") is portable
