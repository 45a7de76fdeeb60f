"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import ArgumentError
from ..kernels import sgd_
from .optimizer import Optimizer, check_not_negative, zeros_like


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, PyTorch's rule to the letter (see kernels.sgd_).

    The momentum starts with the first gradient as it is: no dampening then. Raises ArgumentError for settings that
    make no sense, such as Nesterov without momentum.
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
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening,
            "weight_decay": weight_decay, "nesterov": nesterov, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def check(self, settings: dict[str, Any]) -> None:
        check_not_negative("SGD", **{name: settings[name] for name in ("lr", "momentum", "weight_decay")})
        if settings["nesterov"] and (settings["momentum"] <= 0 or settings["dampening"] != 0):
            raise ArgumentError("SGD: Nesterov momentum requires a momentum and zero dampening")

    def update(self, p: Any, state: dict[str, Any], settings: dict[str, Any]) -> None:
        if settings["momentum"] and "momentum_buffer" not in state:
            state["momentum_buffer"] = zeros_like(p)
            settings = {**settings, "dampening": 0.0}
        velocity = state["momentum_buffer"] if settings["momentum"] else None
        sgd_(p.data, p.grad.data, velocity, **settings)
