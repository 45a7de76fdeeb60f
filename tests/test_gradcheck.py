"""The public gradient checker: it passes what is right and sees an error of one in a million."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from minires import Function, Tensor, gradcheck
from minires.errors import DTypeError, GraphError
from minires.gradcheck import TOLERANCE

RIGHT = {
    "exp": (Tensor.exp, [(3, 4)]),
    "mul": (lambda a, b: a * b, [(3, 4), (4,)]),
    "matmul": (lambda a, b: a @ b, [(3, 4), (4, 2)]),
    "scalar": (lambda a: (a * a).sum(), [(2, 3)]),
    "unused": (lambda a, b: a * 2, [(3,), (2,)]),
    "empty": (lambda a: a * 2, [(0, 3)]),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_gradients_pass(name: str, rng: np.random.Generator) -> None:
    """It returns the worst error, and leaves the arrays as they were."""
    function, shapes = RIGHT[name]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    copies = [a.copy() for a in arrays]
    worst = gradcheck(function, arrays)
    assert isinstance(worst, float)
    assert 0 <= worst <= TOLERANCE
    for a, b in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(a, b)


@dataclass(eq=False)
class Scaled(Function):
    """a * b, the gradient of b times `factor`."""

    factor: float

    def forward(self, a: Any, b: Any) -> Any:
        self.save(a, b)
        return a * b

    def backward(self, gy: Any) -> Any:
        a, b = self.saved
        return gy * b, gy * a * self.factor


@pytest.mark.parametrize("factor", [1 + 1e-6, 1 - 1e-6, 2.0, 0.0, -1.0, np.nan])
def test_wrong_gradients_fail(factor: float, rng: np.random.Generator) -> None:
    arrays = rng.standard_normal((2, 5))
    with pytest.raises(GraphError, match=r"relative error .* exceeds 1e-07 at input 1 of shape \(5,\): .* by backward"):
        gradcheck(lambda a, b: Scaled(factor)(a, b), arrays)


def test_a_looser_tolerance_returns_the_error(rng: np.random.Generator) -> None:
    worst = gradcheck(lambda a, b: Scaled(1.01)(a, b), rng.standard_normal((2, 5)), tolerance=0.1)
    assert worst == pytest.approx(0.01 / 1.01, rel=1e-3)


def test_a_lost_term_fails(rng: np.random.Generator) -> None:
    with pytest.raises(GraphError, match="input 0"):
        gradcheck(lambda a: a * a.detach(), [rng.standard_normal(4)])


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_only_float64(dtype: Any) -> None:
    with pytest.raises(DTypeError, match=f"input 1 is {np.dtype(dtype)}; .* need float64"):
        gradcheck(lambda a, b: a + b, [np.ones(2), np.ones(2, dtype)])


def test_the_seed_fixes_the_result(rng: np.random.Generator) -> None:
    x = [rng.standard_normal(4)]
    assert gradcheck(Tensor.exp, x, seed=1) == gradcheck(Tensor.exp, x, seed=1)
    assert gradcheck(Tensor.exp, x, seed=1) != gradcheck(Tensor.exp, x, seed=2)
