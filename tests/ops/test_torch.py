"""Every case against PyTorch in float64: the result and all gradients."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers import assert_f64
from tests.ops.case import Case, gradient_for
from tests.ops.cases import CASES
from tests.oracle import torch


def _to_torch(a: np.ndarray, axes: tuple[int, ...] | None) -> np.ndarray:
    return np.ascontiguousarray(a.transpose(axes)) if axes else a.copy()


def _from_torch(a: np.ndarray, axes: tuple[int, ...] | None) -> np.ndarray:
    return a.transpose(np.argsort(axes)) if axes else a


@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_gradients_are_pytorchs(case: Case) -> None:
    arrays = case.inputs()
    axes = [*case.axes, *[None] * len(arrays)][: len(arrays)]
    tensors = [torch.from_numpy(_to_torch(a, x)) for a, x in zip(arrays, axes, strict=True)]
    floats = [t.requires_grad_() for t in tensors if t.is_floating_point()]
    y = case.torch(torch, *tensors)
    got = case.run(arrays)
    y.backward(torch.from_numpy(_to_torch(gradient_for(got[0]), case.out)))
    assert_f64(got[0], _from_torch(y.detach().numpy(), case.out), case.tolerances[0])
    for g, t, x, tolerance in zip(got[1:], floats, axes, case.tolerances[1:], strict=False):
        assert_f64(g, _from_torch(t.grad.numpy(), x), tolerance)
