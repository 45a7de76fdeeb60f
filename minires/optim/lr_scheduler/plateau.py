"""The schedule that watches a metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...errors import ArgumentError
from ..optimizer import Optimizer
from .scheduler import LRScheduler, between, choice, count, floats, per_group


class ReduceLROnPlateau(LRScheduler):
    """The rate times `factor`, not below `min_lr`, once a metric got no better for more than `patience` steps.

    Better is lower (`mode` "min") or higher ("max") than the best so far by `threshold`, a part of the best ("rel") or
    a difference ("abs"). After a change `cooldown` steps do not count. Changes of `eps` or less are not made.
    """

    apart = ("optimizer", "lrs")

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        name = "ReduceLROnPlateau"
        self.mode = choice(name, "mode", mode, ("min", "max"))
        self.factor = between(name, "factor", factor)
        if self.factor >= 1:
            raise ArgumentError(f"{name}: factor must be below 1, not {factor}")
        self.patience, self.cooldown = count(name, "patience", patience, 0), count(name, "cooldown", cooldown, 0)
        self.threshold = between(name, "threshold", threshold)
        self.threshold_mode = choice(name, "threshold_mode", threshold_mode, ("rel", "abs"))
        self.min_lr, self.eps = floats(min_lr), between(name, "eps", eps)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = 0
        for least in per_group(name, "min_lr", self.min_lr, len(optimizer.param_groups)):
            between(name, "min_lr", least)
        super().__init__(optimizer)

    def rates(self, epoch: float) -> list[float]:
        return self.get_last_lr()  # an epoch alone changes nothing

    def step(self, metrics: Any) -> None:  # type: ignore[override]
        """One epoch on, after which the metric is `metrics`, a number. NaN is no better than anything."""
        current = float(metrics)
        self.last_epoch += 1
        if self._is_better(current):
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown_counter - 1, 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _is_better(self, current: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            return sign * current > sign * self.best * (1 + sign * self.threshold)
        return sign * current > sign * self.best + self.threshold

    def _reduce(self) -> None:
        groups = self.optimizer.param_groups
        for group, least in zip(
            groups, per_group(type(self).__name__, "min_lr", self.min_lr, len(groups)), strict=True
        ):
            rate = max(group["lr"] * self.factor, least)
            if group["lr"] - rate > self.eps:
                group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "lrs": self.get_last_lr()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for group, rate in zip(self.optimizer.param_groups, state_dict["lrs"], strict=False):
            group["lr"] = rate
