"""What the property tests of these families ask of an op: PyTorch's result in float64, whatever dtype and layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minires import Tensor
from tests.oracle import torch

Arrays = list[np.ndarray]
# Relative, and absolute for inputs of about 1.
CLOSE = {np.dtype(np.float16): 1e-3, np.dtype(np.float32): 5e-7, np.dtype(np.float64): 1e-14}


def weights_for(shape: tuple[int, ...]) -> np.ndarray:
    """A result's gradient: multiples of 1/4, so that products with multiples of 1/8 and their sums are exact."""
    return np.random.default_rng(3).integers(-8, 9, shape) / 4


def run(op: Callable[..., Any], inputs: Arrays, gy: np.ndarray | None = None) -> Arrays:
    """minires' result and gradients, in the inputs' dtype."""
    tensors = [Tensor(a, requires_grad=True) for a in inputs]
    y = op(*tensors)
    y.backward((weights_for(y.shape) if gy is None else gy).astype(y.dtype))
    return [y.data, *(t.grad.data for t in tensors)]


def run_torch(op: Callable[..., Any], inputs: Arrays) -> Arrays:
    """PyTorch's, in float64."""
    tensors = [torch.tensor(a.copy(order="C"), dtype=torch.float64, requires_grad=True) for a in inputs]
    y = op(*tensors)
    y.backward(torch.tensor(weights_for(tuple(y.shape))))
    return [y.detach().numpy(), *(t.grad.numpy() for t in tensors)]


def check(ours: Callable[..., Any], theirs: Callable[..., Any], inputs: Arrays, exact: bool) -> None:
    """Result and gradients are PyTorch's: rounded once if `exact`, else within CLOSE. Inputs stay as they were."""
    dtype, copies = inputs[0].dtype, [a.copy() for a in inputs]
    for got, want in zip(run(ours, inputs), run_torch(theirs, inputs), strict=True):
        assert (got.shape, got.dtype) == (want.shape, dtype)
        if exact:
            np.testing.assert_array_equal(got, want.astype(dtype))
        else:
            np.testing.assert_allclose(got.astype(np.float64), want, rtol=CLOSE[dtype], atol=CLOSE[dtype])
    for a, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(a, copy)


def check_adjoint(op: Callable[..., Any], inputs: Arrays) -> None:
    """<f(x), u> = <x, f*(u)>, to the last bit: all numbers are multiples of powers of 2."""
    wide = [a.astype(np.float64) for a in inputs]
    y, *gradients = run(op, wide)
    right = sum(np.sum(a * g) for a, g in zip(wide, gradients, strict=True))
    assert np.sum(y * weights_for(y.shape)) == right
