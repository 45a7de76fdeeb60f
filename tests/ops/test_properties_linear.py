"""Matrix products of any shapes that broadcast, floating type and memory layout: to the last bit.

Products of multiples of 1/8 and sums of a few of them are exact in float32; in float16 they are rounded once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from minires import Tensor, ops
from tests.ops.properties import check
from tests.oracle import torch
from tests.strategies import arrays, broadcastable, dtypes, shapes

some = settings(max_examples=100)
sizes = st.integers(0, 4)


@st.composite
def operands(draw: Any) -> list[np.ndarray]:
    """Two arrays that multiply: rows and columns, matrices, and stacks of them that broadcast."""
    m, k, n, dtype = draw(sizes), draw(sizes), draw(sizes), draw(dtypes)
    left, right = draw(broadcastable(2, max_dims=2))
    row, column = draw(st.booleans()), draw(st.booleans())
    a = (k,) if row and not left else (*left, m, k)
    b = (k,) if column and not right else (*right, k, n)
    return [draw(arrays(shape, dtype)) for shape in (a, b)]


@some
@given(operands())
def test_matmul_is_pytorchs(inputs: list[np.ndarray]) -> None:
    check(ops.matmul, torch.matmul, inputs, exact=True)


@some
@given(shapes(min_dims=1), sizes, dtypes, st.booleans(), st.data())
def test_linear_is_pytorchs(shape: tuple[int, ...], outputs: int, dtype: Any, bias: bool, data: Any) -> None:
    given_shapes = [shape, (outputs, shape[-1]), (outputs,)][: 2 + bias]
    inputs = [data.draw(arrays(s, dtype)) for s in given_shapes]
    check(ops.linear, torch.nn.functional.linear, inputs, exact=True)


@some
@given(operands())
def test_matmul_is_linear_in_each_operand(inputs: list[np.ndarray]) -> None:
    """<a @ b, u> = <a, ga> = <b, gb>: one product of three, however its factors are grouped."""
    a, b = (Tensor(x.astype(np.float64), requires_grad=True) for x in inputs)
    y = ops.matmul(a, b)
    u = np.random.default_rng(0).integers(-8, 9, y.shape) / 4
    y.backward(u)
    assert np.sum(y.data * u) == np.sum(a.data * a.grad.data) == np.sum(b.data * b.grad.data)


@some
@given(operands())
def test_integers_multiply_as_in_pytorch(inputs: list[np.ndarray]) -> None:
    a, b = ((x.astype(np.float64) * 8).astype(np.int64) for x in inputs)
    y = ops.matmul(Tensor(a), Tensor(b))
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y.data, torch.matmul(torch.tensor(a), torch.tensor(b)).numpy())
