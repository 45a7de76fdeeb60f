"""Matrix products: float16 through float32, and summed to the shape of a repeated operand."""

from __future__ import annotations

import numpy as np
import pytest

from minires.kernels import matmul, matmul_to_shape
from tests import reference
from tests.helpers import TOLERANCES, assert_f64


@pytest.mark.parametrize("shapes", [((4, 3), (3, 5)), ((2, 4, 3), (3, 5)), ((2, 1, 4, 3), (3, 3, 2)), ((4, 0), (0, 2))])
def test_a_product_plus_a_bias(rng: np.random.Generator, shapes: tuple[tuple[int, ...], ...]) -> None:
    a, b = map(rng.standard_normal, shapes)
    bias = rng.standard_normal(shapes[1][-1])
    assert_f64(matmul(a, b), reference.matmul(a, b), TOLERANCES["gemm"])
    assert_f64(matmul(a, b, bias), reference.matmul(a, b) + bias, TOLERANCES["gemm"])


def test_halves_are_rounded_once(rng: np.random.Generator) -> None:
    """Neither the products, nor their sums, nor the product before the bias: in float16 this would be off by 1e-2."""
    a, b, bias = (rng.standard_normal(shape).astype(np.float16) for shape in ((8, 4096), (4096, 6), (6,)))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    for got, want in ((matmul(a, b), exact), (matmul(a, b, bias), exact + bias)):
        assert got.dtype == np.float16
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=4.9e-4, atol=2e-4)
    row = np.full((1, 2), 200, np.float16)
    assert matmul(row, row.T, np.full(1, -60_000, np.float16)) == 20_000  # from 80,000, above float16's largest


def test_the_sum_over_a_repeated_operand(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((5, 2, 4, 3)), rng.standard_normal((2, 3, 6))
    for shape in ((1, 4, 6), (4, 6), (2, 4, 6)):
        want = reference.matmul(a, b).sum((0, 1) if shape[0] != 2 else 0).reshape(shape)
        assert_f64(matmul_to_shape(a, b, shape), want, TOLERANCES["gemm"])
    stack = rng.standard_normal((5, 2, 3, 6))
    assert_f64(matmul_to_shape(a, stack, (4, 6)), reference.matmul(a, stack).sum((0, 1)), TOLERANCES["gemm"])


def test_halves_summed_over_many_repetitions(rng: np.random.Generator) -> None:
    a = rng.random((5000, 1, 2)).astype(np.float16)
    b = rng.random((5000, 2, 1)).astype(np.float16)
    for shape in ((1, 1), (1, 1, 1)):
        got = matmul_to_shape(a, b, shape)
        assert (got.shape, got.dtype) == (shape, np.float16)
        np.testing.assert_allclose(got.item(), np.vdot(a.astype(np.float64), b[..., 0][:, None]), rtol=1e-3)
