"""Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..ops.dropout import check_probability
from ..tensor import Tensor
from .module import Module
from .settings import settings


class Dropout(Module):
    """In training, sets each element to 0 with probability p and divides the others by 1 - p; else does nothing.

    Each call draws from `generator`, or minires.manual_seed's. Raises ArgumentError for p outside [0, 1].
    """

    def __init__(self, p: float = 0.5, *, generator: np.random.Generator | None = None) -> None:
        super().__init__()
        self.p, self.generator = check_probability("Dropout", p), generator

    def forward(self, x: Any) -> Tensor:
        return ops.dropout(x, self.p, self.training, generator=self.generator)

    def extra_repr(self) -> str:
        return settings(p=self.p)
