"""Elementwise ops, activations and dropout on arrays of any shape, floating type and memory layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minires import Tensor, ops
from tests.helpers import laid_out
from tests.oracle import torch
from tests.strategies import arrays, broadcastable, dtypes, layouts, shapes

few = settings(max_examples=50)
T = torch.nn.functional


class Op(NamedTuple):
    """An op beside PyTorch's, the range of its inputs, and whether it is one exact operation an element."""

    ours: Callable[..., Any]
    torch: Callable[..., Any]
    low: float = -4
    high: float = 4
    exact: bool = True


UNARY = {
    "neg": Op(ops.neg, torch.neg),
    "abs": Op(ops.abs, torch.abs),
    "clip": Op(partial(ops.clip, min=-1, max=1.5), partial(torch.clip, min=-1, max=1.5)),
    "sqrt": Op(ops.sqrt, torch.sqrt, 0.5),
    "relu": Op(ops.relu, torch.relu),
    "leaky_relu": Op(partial(ops.leaky_relu, negative_slope=0.25), partial(T.leaky_relu, negative_slope=0.25)),
    "exp": Op(ops.exp, torch.exp, exact=False),
    "log": Op(ops.log, torch.log, 0.5, exact=False),
    "sigmoid": Op(ops.sigmoid, torch.sigmoid, exact=False),
    "tanh": Op(ops.tanh, torch.tanh, exact=False),
    "silu": Op(ops.silu, T.silu, exact=False),
    "gelu": Op(ops.gelu, T.gelu, exact=False),
    "gelu_tanh": Op(partial(ops.gelu, approximate="tanh"), partial(T.gelu, approximate="tanh"), exact=False),
}
BINARY = {
    "add": Op(ops.add, torch.add),
    "sub": Op(ops.sub, torch.sub),
    "mul": Op(ops.mul, torch.mul),
    "div": Op(ops.div, torch.div, 0.5),
    "pow": Op(ops.pow, torch.pow, 0.5, 2, exact=False),
    "maximum": Op(ops.maximum, torch.maximum),
    "minimum": Op(ops.minimum, torch.minimum),
}


def run(op: Callable[..., Any], inputs: list[np.ndarray], gy: np.ndarray) -> list[np.ndarray]:
    """The result and the gradient of each input."""
    tensors = [Tensor(a, requires_grad=True) for a in inputs]
    y = op(*tensors)
    y.backward(gy)
    return [y.data, *(t.grad.data for t in tensors)]


def run_torch(op: Callable[..., Any], inputs: list[np.ndarray], gy: np.ndarray) -> list[np.ndarray]:
    tensors = [torch.tensor(a.copy(order="C"), dtype=torch.float64, requires_grad=True) for a in inputs]
    y = op(*tensors)
    y.backward(torch.tensor(gy.copy(order="C"), dtype=torch.float64))
    return [y.detach().numpy(), *(t.grad.numpy() for t in tensors)]


def check(op: Op, inputs: list[np.ndarray], draw: Any, condition: tuple[int, ...] = ()) -> None:
    """Shapes, dtypes, the same as for contiguous copies, unmodified inputs, and in float64 the same as PyTorch."""
    dtype, shape = inputs[0].dtype, np.broadcast_shapes(condition, *(a.shape for a in inputs))
    gy = draw(arrays(shape, dtype, -2, 2))
    plain = [a.copy(order="C") for a in inputs]
    got, want = run(op.ours, inputs, gy), run(op.ours, plain, gy.copy(order="C"))
    for g, w, given_shape in zip(got, want, [shape, *(a.shape for a in inputs)], strict=True):
        assert (g.shape, g.dtype) == (given_shape, dtype)
        if op.exact and given_shape == shape:
            np.testing.assert_array_equal(g, w)
        else:  # a sum may run in another order; NumPy may have other code for exp and pow of strided arrays
            np.testing.assert_allclose(g, w, rtol=4 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).eps)
    for a, copy in zip(inputs, plain, strict=True):
        np.testing.assert_array_equal(a, copy)
    if dtype == np.float64:
        for g, w in zip(got, run_torch(op.torch, plain, gy), strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-14, atol=1e-14)


@few
@pytest.mark.parametrize("name", UNARY)
@given(data=st.data())
def test_of_one_array(name: str, data: Any) -> None:
    op = UNARY[name]
    check(op, [data.draw(arrays(low=op.low, high=op.high))], data.draw)


@few
@pytest.mark.parametrize("name", BINARY)
@given(data=st.data())
def test_of_two_arrays_that_broadcast(name: str, data: Any) -> None:
    op, dtype = BINARY[name], data.draw(dtypes)
    check(op, [data.draw(arrays(shape, dtype, op.low, op.high)) for shape in data.draw(broadcastable(2))], data.draw)


@few
@given(data=st.data())
def test_where_of_three_arrays_that_broadcast(data: Any) -> None:
    (first, *rest), dtype = data.draw(broadcastable(3)), data.draw(dtypes)
    c = data.draw(arrays(first, np.float64)) > 0
    op = Op(partial(ops.where, c), partial(torch.where, torch.tensor(c)))
    check(op, [data.draw(arrays(shape, dtype)) for shape in rest], data.draw, first)


@few
@given(x=arrays(), p=st.sampled_from([0.25, 0.5, 1.0]), seed=st.integers(0, 2**32), layout=layouts)
def test_dropout(x: np.ndarray, p: float, seed: int, layout: str) -> None:
    """The mask depends on the seed and the shape alone, and is that of the gradient."""

    def op(t: Any) -> Any:
        return ops.dropout(t, p, generator=np.random.default_rng(seed))

    mask = op(np.ones(x.shape)).data
    gy = laid_out(np.full(x.shape, 0.5, x.dtype), layout)
    y, gx = run(op, [x], gy)
    assert y.dtype == gx.dtype == x.dtype
    assert y.shape == gx.shape == x.shape
    want = np.zeros(x.shape) if p == 1 else x * mask
    np.testing.assert_array_equal(y, run(op, [x.copy(order="C")], gy.copy(order="C"))[0])
    np.testing.assert_allclose(y, want.astype(x.dtype), rtol=2 * np.finfo(x.dtype).eps)
    np.testing.assert_allclose(gx, 0.5 * mask, rtol=2 * np.finfo(x.dtype).eps)


kinds = st.sampled_from(["bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64"])


@st.composite
def operands(draw: Any) -> Any:
    """An array of any type, with or without dimensions, or a Python number."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from([True, 1, 2.5]))
    return np.ones(draw(shapes(max_dims=1, min_side=2, max_side=2)), draw(kinds))


@settings(max_examples=100)
@given(a=operands(), b=operands())
def test_types_promote_as_in_pytorch(a: Any, b: Any) -> None:
    if not (isinstance(a, np.ndarray) or isinstance(b, np.ndarray)):
        return
    theirs = [torch.from_numpy(v) if isinstance(v, np.ndarray) else v for v in (a, b)]
    want = str(torch.result_type(*theirs)).removeprefix("torch.")
    for op in (ops.add, ops.maximum, ops.minimum, partial(ops.where, np.ones(2, bool))):
        assert op(a, b).dtype.name == want


@few
@given(data=st.data(), value=st.sampled_from([2, 0.1, np.float64(0.1), np.float32(0.1), np.int64(3), True]))
def test_float32_stays_float32(data: Any, value: Any) -> None:
    """Beside Python's and NumPy's numbers, forward and backward."""
    x = data.draw(arrays(dtype=np.float32, low=0.5))
    numbers = [partial(op.ours, value) for op in BINARY.values()] + [lambda t: ops.where(x > 1, t, value)]
    others = [lambda t, op=op: op.ours(t, value) for op in BINARY.values()] + [lambda t: ops.clip(t, value, value)]
    for op in (*numbers, *others, *(op.ours for op in UNARY.values())):
        y, gx = run(op, [x], np.ones_like(x, order="C"))
        assert y.dtype == gx.dtype == np.float32
