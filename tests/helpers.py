"""What the op and kernel tests share: the tolerances, the memory layouts and the mutation of a backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from minires import Tensor


@dataclass(frozen=True)
class Tolerance:
    """Admitted errors: in float64 relative to the largest entry plus `absolute`, in float32 relative to the rms.

    float16 is relative to the largest entry, against the float64 result for the same float16 inputs.
    """

    f64: float
    f32_max: float
    f32_rms: float
    f16: float
    absolute: float = 0.0


EXACT = Tolerance(0, 0, 0, 0)  # bit for bit; in float32 and float16 against the float64 result, rounded once
TOLERANCES = {
    "exact": EXACT,
    "rounded": Tolerance(2.3e-16, 1.2e-7, 6e-8, 5e-4),  # 1 ulp: quotients and roots
    "function": Tolerance(1e-14, 5e-6, 1e-7, 1e-3),
    "gemm": Tolerance(1e-13, 1e-5, 5e-7, 2e-3),
    # convolutions that precision="fast" allows; in float64 they show that the algebra is right
    "gemm_fast": Tolerance(1e-12, 1e-4, 5e-6, 2e-3),
    # products on a GPU's tensor cores, which precision="tf32" allows: operands keep 10 bits behind the point. Cut off,
    # not rounded, each is too small by 3.5e-4 of itself on average: a product by 7e-4, and something at random
    "gemm_tf32": Tolerance(0, 1e-2, 1e-3, 0),
    "sum": Tolerance(1e-14, 5e-7, 5e-7, 1e-3),
    # 1e-12 absolute: over two values a channel, gradients cancel to nearly nothing
    "norm": Tolerance(1e-12, 5e-6, 2e-7, 2e-3, absolute=1e-12),
    "norm_sum": Tolerance(1e-12, 5e-7, 5e-7, 2e-3, absolute=1e-12),  # the gradients of its weight and bias
    "softmax": Tolerance(1e-14, 1e-5, 2e-7, 2e-3),
    "cross_entropy": Tolerance(1e-14, 2e-6, 2e-6, 1e-3),
}


def assert_f64(got: np.ndarray, want: np.ndarray, tolerance: Tolerance) -> None:
    """A float64 result is of the right type and shape, and within the tolerance."""
    assert got.dtype == want.dtype == np.float64
    assert got.shape == want.shape
    if tolerance is EXACT:
        np.testing.assert_array_equal(got, want)
    elif want.size:
        error, limit = np.max(np.abs(got - want)), tolerance.f64 * np.max(np.abs(want)) + tolerance.absolute
        assert error <= limit, f"error {error:.2e} exceeds {limit:.2e}"


def f32_errors(got: np.ndarray, want: np.ndarray) -> tuple[float, float]:
    """The largest and the rms difference from a float64 reference, relative to the reference's rms."""
    difference, scale = got.astype(np.float64) - want, np.sqrt(np.mean(np.square(want)))
    return float(np.max(np.abs(difference)) / scale), float(np.sqrt(np.mean(np.square(difference))) / scale)


def assert_f32(got: np.ndarray, want: np.ndarray, tolerance: Tolerance) -> None:
    """A float32 result is of the right type and shape, and near its float64 reference."""
    assert got.dtype == np.float32
    assert got.shape == want.shape
    if tolerance is EXACT or not np.any(want):
        np.testing.assert_array_equal(got, want.astype(np.float32))
        return
    largest, rms = f32_errors(got, want)
    assert largest <= tolerance.f32_max, f"max error {largest:.2e} exceeds {tolerance.f32_max:.0e}"
    assert rms <= tolerance.f32_rms, f"rms error {rms:.2e} exceeds {tolerance.f32_rms:.0e}"


def assert_f16(got: np.ndarray, want: np.ndarray, tolerance: Tolerance) -> None:
    """A float16 result is of the right type and shape, and near its float64 reference."""
    assert got.dtype == np.float16
    assert got.shape == want.shape
    if tolerance is EXACT:
        np.testing.assert_array_equal(got, want.astype(np.float16))
    elif want.size:
        error, limit = np.max(np.abs(got - want)), tolerance.f16 * np.max(np.abs(want))
        assert error <= limit, f"error {error:.2e} exceeds {limit:.2e}"


def _stepped(x: np.ndarray) -> np.ndarray:
    view = np.full([2 * size for size in x.shape], 7, dtype=x.dtype)[(slice(None, None, 2),) * x.ndim]
    view[...] = x
    return view


def _negative(x: np.ndarray) -> np.ndarray:
    backwards = (slice(None, None, -1),) * x.ndim
    return x[backwards].copy()[backwards]


# How an array of given values may lie in memory; "broadcast" repeats the values of the first row.
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C": np.ascontiguousarray,
    "fortran": np.asfortranarray,
    "stepped": _stepped,
    "negative": _negative,
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
}


def laid_out(x: np.ndarray, layout: str) -> np.ndarray:
    """x in one of the LAYOUTS; a number as it is."""
    return LAYOUTS[layout](x) if x.ndim else x


def value_and_gradients(fn: Callable[..., Any], *values: Any) -> list[Any]:
    """An op's result and gradients, for an output gradient of ones, as lists."""
    tensors = [Tensor(np.array(v), requires_grad=True) for v in values]
    y = fn(*tensors)
    y.backward(np.ones(y.shape))
    return [y.tolist(), *(t.grad.tolist() for t in tensors)]


Backward = Callable[..., Any]


@contextmanager
def mutant(function: type, wrong: Callable[[Backward], Backward]) -> Iterator[None]:
    """Within the block `function.backward` is `wrong(function.backward)`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(function, "backward", wrong(function.backward))  # type: ignore[attr-defined]
        yield
