"""Dropout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Function
from ..kernels import dropout as dropout_kernel
from ..kernels import dropout_mask
from ..random import given_or_default
from .checks import as_tensor, check_float, number_within


@dataclass(eq=False)
class Dropout(Function):
    """y = x * m / (1 - p), m being 0 with probability p, else 1 (Srivastava et al., 2014), so that E[y] = x.

    Shapes    x, y, m (...)
    Forward   m_i is a function of the key and of i alone: see kernels/portable/dropout.py
    Backward  gx = gy * m / (1 - p): the op is linear in x, and its own adjoint
    Saves     m, a byte an element. It could be drawn again from the key, but drawing is most of the cost
    Cost      ten rounds of Philox for four elements forward; one pass over memory backward
    """

    p: float
    key: tuple[int, int]

    def forward(self, x: Any) -> Any:
        mask = dropout_mask(x, self.key, self.p)
        self.save(mask)
        return dropout_kernel(x, mask, self.p)

    def backward(self, gy: Any) -> Any:
        return dropout_kernel(gy, self.saved[0], self.p)


def check_probability(op: str, p: float) -> float:
    """p as a float in [0, 1]. Raises ArgumentError."""
    return number_within(op, "p, the share that is dropped,", p, 0, 1)


def dropout(input: Any, p: float = 0.5, training: bool = True, *, generator: np.random.Generator | None = None) -> Any:
    """In training, input with each element set to 0 with probability p, and 1/(1 - p) times as large otherwise.

    Each call draws a key of 64 bits from `generator`, or minires.manual_seed's. In evaluation, and for p = 0, the
    result is input itself, and nothing is drawn. Raises ArgumentError for p outside [0, 1], DTypeError.
    """
    input, p = as_tensor(input), check_probability("dropout", p)
    if not training or p == 0:
        return input
    check_float("dropout", input=input)
    low, high = given_or_default(generator).integers(2**32, size=2).tolist()
    return Dropout(p, (low, high))(input)
