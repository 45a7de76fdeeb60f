"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import ArgumentError
from ..kernels import quiet, sgd_
from .optimizer import Optimizer, python_number


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, PyTorch's rule to the letter (see kernels.sgd_).

    Raises ArgumentError for settings that make no sense, such as Nesterov without momentum.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        for name, value in {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}.items():
            if not value >= 0:
                raise ArgumentError(f"SGD: {name} must be at least 0, not {value}")
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ArgumentError("SGD: Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening,
            "weight_decay": weight_decay, "nesterov": nesterov, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def step(self) -> None:
        """w -= lr * v for every parameter with a gradient, in place."""
        for group in self.param_groups:
            settings = {name: python_number(group[name]) for name in self.defaults}
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state.setdefault(p, {"momentum_buffer": None})
                with quiet():
                    state["momentum_buffer"] = sgd_(p.data, p.grad.data, state["momentum_buffer"], **settings)
                p.version.count += 1
