"""Softmax and the losses."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..tensor import Tensor
from .module import Module
from .settings import settings


class _AlongDim(Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        return settings(dim=self.dim)


class Softmax(_AlongDim):
    """exp(x), scaled to sum 1 along `dim`."""

    def forward(self, x: Any) -> Tensor:
        return ops.softmax(x, self.dim)


class LogSoftmax(_AlongDim):
    """The logarithm of the softmax along `dim`."""

    def forward(self, x: Any) -> Tensor:
        return ops.log_softmax(x, self.dim)


class _Loss(Module):
    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def extra_repr(self) -> str:
        return settings(reduction=self.reduction)


class NLLLoss(_Loss):
    """Minus the log-probability (N, C) at the target (N,)."""

    def forward(self, input: Any, target: Any) -> Tensor:
        return ops.nll_loss(input, target, reduction=self.reduction)


class CrossEntropyLoss(_Loss):
    """Softmax cross-entropy of logits (N, C) with class numbers (N,)."""

    def forward(self, input: Any, target: Any) -> Tensor:
        return ops.cross_entropy(input, target, reduction=self.reduction)
