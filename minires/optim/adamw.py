"""Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import ArgumentError
from ..kernels import adamw_
from .optimizer import Optimizer, check_not_negative, zeros_like


class AdamW(Optimizer):
    """Adam (Kingma and Ba, 2015) with weight decay apart from the gradient (Loshchilov and Hutter, 2019, algorithm 2).

    PyTorch's rule to the letter (see kernels.adamw_). With `amsgrad` a weight's rate never grows again (Reddi et al.,
    2018). Keeps two arrays a parameter, three with `amsgrad`, and the number of steps. Raises ArgumentError for
    settings that make no sense.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr, "betas": betas, "eps": eps,
            "weight_decay": weight_decay, "amsgrad": amsgrad, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def check(self, settings: dict[str, Any]) -> None:
        check_not_negative("AdamW", **{name: settings[name] for name in ("lr", "eps", "weight_decay")})
        betas = settings["betas"]
        numbers = isinstance(betas, tuple) and all(isinstance(beta, (int, float)) for beta in betas)
        if not (numbers and len(betas) == 2 and all(0 <= beta < 1 for beta in betas)):
            raise ArgumentError(f"AdamW: betas must be two numbers of at least 0 and below 1, not {betas}")

    def update(self, p: Any, state: dict[str, Any], settings: dict[str, Any]) -> None:
        if not state:
            state.update(step=0, exp_avg=zeros_like(p), exp_avg_sq=zeros_like(p))
        if settings["amsgrad"] and "max_exp_avg_sq" not in state:
            state["max_exp_avg_sq"] = zeros_like(p)
        state["step"] += 1
        adamw_(p.data, p.grad.data, **state, **settings)
