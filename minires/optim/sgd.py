"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import ArgumentError
from ..kernels import sgd_foreach_
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
        self._step([p], settings)

    def update_group(self, params: list[Any], settings: dict[str, Any]) -> None:
        if type(self).update is not SGD.update:  # a subclass's rule, for one parameter at a time
            super().update_group(params, settings)
            return
        for dtype in dict.fromkeys(p.dtype for p in params):
            self._step([p for p in params if p.dtype == dtype], settings)

    def _step(self, params: list[Any], settings: dict[str, Any]) -> None:
        """All at once; but those that have no velocity yet apart, since their first gradient is not dampened."""
        new = {p for p in params if settings["momentum"] and "momentum_buffer" not in self.state.get(p, {})}
        for p in new:
            self.state.setdefault(p, {})["momentum_buffer"] = zeros_like(p)
        for first in (True, False):
            now = [p for p in params if (p in new) == first]
            if now:
                buffers = [self.state[p]["momentum_buffer"] for p in now] if settings["momentum"] else None
                dampening = 0.0 if first else settings["dampening"]
                gradients = [p.grad.data for p in now]
                sgd_foreach_([p.data for p in now], gradients, buffers, **{**settings, "dampening": dampening})
