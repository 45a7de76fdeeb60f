"""Batch norm in blocks of rows, at drawn shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minires import kernels
from minires.kernels.cpu import norm as cpu
from tests import reference
from tests.helpers import TOLERANCES, assert_f64

shapes = st.tuples(st.integers(1, 70), st.integers(1, 5))


def calls(shape: tuple[int, int], add: bool, relu: bool) -> dict[str, Any]:
    """Each kernel on drawn arrays."""
    rng = np.random.default_rng(0)
    x, gy, z = (rng.standard_normal(shape) for _ in range(3))
    gamma, beta = rng.standard_normal((2, shape[1]))
    with kernels.use("portable"):
        hi, lo, _, invstd = kernels.batch_norm_statistics(x, 1e-2)
    return {
        "batch_norm_statistics": lambda: kernels.batch_norm_statistics(x, 1e-2),
        "batch_norm_apply": lambda: (
            kernels.batch_norm_apply(x, hi, lo, invstd, gamma, beta, z if add else None, relu),
        ),
        "batch_norm_grad": lambda: kernels.batch_norm_grad(gy, x, hi, lo, invstd, gamma),
    }


@pytest.mark.parametrize("block_bytes", [1, 300, 1 << 20])
@given(shape=shapes, add=st.booleans(), relu=st.booleans())
def test_blocks_give_what_the_whole_gives(block_bytes: int, shape: tuple[int, int], add: bool, relu: bool) -> None:
    for name, call in calls(shape, add, relu).items():
        with kernels.use("portable"):
            want = call()
        with pytest.MonkeyPatch.context() as patch, kernels.use(**{name: "blocked"}):
            patch.setattr(cpu, "BLOCK_BYTES", block_bytes)
            got = call()
        for index, (g, w) in enumerate(zip(got, want, strict=True)):
            if (name, index) == ("batch_norm_statistics", 1):  # lo, what rounding took from hi
                g, w = got[0] + g, want[0] + w
            assert_f64(g, w, TOLERANCES["norm"])


@given(shape=shapes, mean=st.floats(-1e6, 1e6, width=32))
def test_statistics_are_exact_in_float32(shape: tuple[int, int], mean: float) -> None:
    x = (mean + np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    means, variances = reference.moments(x.astype(np.float64))
    for variant in ("portable", "blocked"):
        with kernels.use(batch_norm_statistics=variant):
            hi, lo, variance, invstd = kernels.batch_norm_statistics(x, 1e-2)
        assert {a.dtype for a in (hi, lo, variance, invstd)} == {np.dtype(np.float32)}
        np.testing.assert_allclose(hi.astype(np.float64) + lo, means, rtol=1e-13, atol=2e-7)
        np.testing.assert_allclose(variance, variances, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(invstd, 1 / np.sqrt(variances + 1e-2), rtol=1e-6)
