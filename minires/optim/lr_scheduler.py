"""Learning-rate schedules: `step()` after each epoch sets the rate of every parameter group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .optimizer import Optimizer


class LRScheduler:
    """Base of the schedules: a subclass gives `rate(initial, epoch)`, the rate in closed form."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.last_epoch = 0
        self._set()

    def rate(self, initial: float, epoch: int) -> float:
        """The rate after `epoch` steps of a group that started at `initial`."""
        raise NotImplementedError

    def step(self) -> None:
        """One epoch on."""
        self.last_epoch += 1
        self._set()

    def _set(self) -> None:
        for group in self.optimizer.param_groups:  # the first rate stays with its group, also of one added later
            group["lr"] = self.rate(group.setdefault("initial_lr", group["lr"]), self.last_epoch)

    def get_last_lr(self) -> list[float]:
        """The current rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {name: value for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state, and set the rates."""
        vars(self).update(state_dict)
        self._set()


class MultiStepLR(LRScheduler):
    """The rate times `gamma` at each of `milestones`, counted in steps."""

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1) -> None:
        self.milestones, self.gamma = sorted(int(m) for m in milestones), float(gamma)
        super().__init__(optimizer)

    def rate(self, initial: float, epoch: int) -> float:
        return initial * self.gamma ** sum(m <= epoch for m in self.milestones)
