"""Norms of drawn shapes, types and memory layouts, beside PyTorch's in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minires import Tensor, ops
from tests.oracle import torch
from tests.strategies import arrays, dtypes, shapes

few = settings(max_examples=100)
EPS = 0.25  # large beside the drawn numbers' steps of 1/8: groups without any spread are common
ERRORS = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 5e-6, np.dtype(np.float16): 2e-3}


def torchs(a: np.ndarray, gradient: bool = True) -> Any:
    return torch.tensor(a.astype(np.float64), requires_grad=gradient)


def last_axis_second(x: Any) -> Any:
    return x.permute(0, x.ndim - 1, *range(1, x.ndim - 1))


def check(ours: Any, theirs: Any, inputs: list[np.ndarray], gy: np.ndarray) -> None:
    """`ours` on inputs as they lie in memory, and `theirs`: the result and all gradients."""
    copies = [a.copy() for a in inputs]
    tensors = [Tensor(a, requires_grad=True) for a in inputs]
    their_tensors = [torchs(a) for a in inputs]
    y, their_y = ours(*tensors), theirs(*their_tensors)
    y.backward(gy)
    their_y.backward(torchs(gy, False))
    pairs = [(y.data, their_y.detach()), *((t.grad.data, u.grad) for t, u in zip(tensors, their_tensors, strict=True))]
    for got, want in pairs:
        assert got.dtype == gy.dtype
        assert got.shape == tuple(want.shape)
        limit = ERRORS[gy.dtype] * max(1, np.max(np.abs(want.numpy()), initial=0))
        assert np.max(np.abs(got - want.numpy()), initial=0) <= limit
    for a, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(a, copy)


@few
@given(st.data())
def test_layer_norm(data: Any) -> None:
    shape = data.draw(shapes(min_dims=1, max_dims=4, min_side=1))
    axes = data.draw(st.integers(1, len(shape)))
    batch = (data.draw(st.sampled_from([0, shape[0]])), *shape[1:]) if axes < len(shape) else shape
    over, dtype = shape[-axes:], data.draw(dtypes)
    inputs = [data.draw(arrays(s, dtype)) for s in (batch, over, over)[: data.draw(st.integers(1, 3))]]
    check(
        lambda x, *wb: ops.layer_norm(x, over, *wb, eps=EPS),
        lambda x, *wb: torch.nn.functional.layer_norm(x, over, *wb, eps=EPS),
        inputs,
        data.draw(arrays(batch, dtype, -2, 2)),
    )


@few
@given(st.data())
def test_group_norm(data: Any) -> None:
    groups, size = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    shape = (*data.draw(shapes(min_dims=1, max_dims=4, min_side=1)), groups * size)
    assume(np.prod(shape) > groups)  # where PyTorch refuses
    dtype = data.draw(dtypes)
    affine = data.draw(st.booleans())
    inputs = [data.draw(arrays(s, dtype)) for s in (shape, *([shape[-1:]] * 2 if affine else []))]

    def theirs(x: Any, *wb: Any) -> Any:
        y = torch.nn.functional.group_norm(last_axis_second(x), groups, *wb, eps=EPS)
        return y.permute(0, *range(2, y.ndim), 1)

    check(
        lambda x, *wb: ops.group_norm(x, groups, *wb, eps=EPS), theirs, inputs, data.draw(arrays(shape, dtype, -2, 2))
    )


@few
@given(st.data())
def test_batch_norm(data: Any) -> None:
    shape = data.draw(shapes(min_dims=2, max_dims=4, min_side=1))
    training = data.draw(st.booleans())
    assume(not training or np.prod(shape[:-1]) > 1)
    dtype = data.draw(dtypes)
    inputs = [data.draw(arrays(s, dtype)) for s in (shape, shape[-1:], shape[-1:])]
    mean, var = data.draw(arrays(shape[-1:], dtype)), data.draw(arrays(shape[-1:], dtype, 0, 4))
    moved = [Tensor(a.copy()) for a in (mean, var)]
    their_moved = [torchs(a, False) for a in (mean, var)]

    def theirs(x: Any, *wb: Any) -> Any:
        y = torch.nn.functional.batch_norm(last_axis_second(x), *their_moved, *wb, training=training, eps=EPS)
        return y.permute(0, *range(2, y.ndim), 1)

    check(
        lambda x, *wb: ops.batch_norm(x, *moved, *wb, training=training, eps=EPS),
        theirs,
        inputs,
        data.draw(arrays(shape, dtype, -2, 2)),
    )
    for t, u in zip(moved, their_moved, strict=True):
        assert t.dtype == dtype
        np.testing.assert_allclose(t.data, u.numpy(), rtol=0, atol=5 * ERRORS[dtype])  # at most 10, moved twice
