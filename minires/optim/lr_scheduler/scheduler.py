"""What the schedules share: the walk over the groups, the state, and the checks of settings."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any, ClassVar

import numpy as np

from ...errors import ArgumentError, CheckpointError
from ..optimizer import Optimizer, python_number


class LRScheduler:
    """Base of the schedules: a subclass gives `rate`, the rate in closed form.

    The first rate of each group is kept in the group, as "initial_lr": a second schedule for the optimizer starts from
    the same. A group that is added later follows the schedule too. A run goes on with `load_state_dict`.
    """

    apart: ClassVar[tuple[str, ...]] = ("optimizer",)  # attributes that are no state, or whose state needs care

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.base_lrs: list[float] = []
        self.last_epoch: float = 0
        self.go_to(0)

    def rate(self, initial: float, epoch: float) -> float:
        """The rate after `epoch` steps of a group that started at `initial`."""
        raise NotImplementedError

    def rates(self, epoch: float) -> list[float]:
        """The rate of each group after `epoch` steps."""
        return [self.rate(initial, epoch) for initial in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """One epoch on, or to any `epoch`, which may be a fraction."""
        self.go_to(self.last_epoch + 1 if epoch is None else python_number(epoch))

    def go_to(self, epoch: float) -> None:
        """Set each group's rate to that of an epoch."""
        groups = self.optimizer.param_groups
        self.base_lrs += [group.setdefault("initial_lr", group["lr"]) for group in groups[len(self.base_lrs) :]]
        rates = self.rates(epoch)  # raises before anything is changed
        self.last_epoch = epoch
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate

    def get_last_lr(self) -> list[float]:
        """The current rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and functions, as JSON can hold it."""
        return {name: deepcopy(value) for name, value in vars(self).items() if name not in self.apart}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state, and set the rates. Raises CheckpointError for that of another schedule."""
        self.check_state(state_dict)
        vars(self).update({name: deepcopy(value) for name, value in state_dict.items() if name not in self.apart})
        self.go_to(self.last_epoch)

    def check_state(self, state_dict: dict[str, Any]) -> None:
        """Raises CheckpointError unless it is of such a schedule, for no more groups than there are."""
        name, ours = type(self).__name__, self.state_dict()
        if not isinstance(state_dict, dict):
            raise CheckpointError(f"{name}: no schedule's state dict, but {type(state_dict).__name__}")
        if set(state_dict) != set(ours):
            raise CheckpointError(f"{name}: state of {', '.join(state_dict)}; its own is {', '.join(ours)}")
        groups, saved = len(self.optimizer.param_groups), len(state_dict["base_lrs"])
        if saved > groups:
            raise CheckpointError(f"{name}: state of {saved} parameter groups, but the optimizer has {groups}")


def cosine(start: float, end: float, way: float) -> float:
    """From `start` (way 0) to `end` (way 1) along half a wave."""
    return end + (start - end) * (1 + math.cos(math.pi * way)) / 2


def count(schedule: str, name: str, value: Any, least: int = 1) -> int:
    """Raises ArgumentError for a setting that is no int of at least `least`."""
    if not isinstance(value, (int, np.integer)) or value < least:
        raise ArgumentError(f"{schedule}: {name} must be an int of at least {least}, not {value!r}")
    return int(value)


def between(schedule: str, name: str, value: Any, low: float = 0, high: float = math.inf) -> float:
    """Raises ArgumentError for a setting that is no number in [low, high]."""
    if not isinstance(value, (int, float, np.number)) or not low <= value <= high:
        limits = f"at least {low}" if high == math.inf else f"between {low} and {high}"
        raise ArgumentError(f"{schedule}: {name} must be {limits}, not {value!r}")
    return float(value)


def choice(schedule: str, name: str, value: str, choices: tuple[str, ...]) -> str:
    """Raises ArgumentError for a setting that is none of the choices."""
    if value not in choices:
        raise ArgumentError(f"{schedule}: {name} must be one of {', '.join(choices)}, not {value!r}")
    return value


def floats(value: Any) -> Any:
    """A number, or several, as JSON holds them."""
    return [float(v) for v in value] if isinstance(value, (list, tuple)) else float(value)


def per_group(schedule: str, name: str, value: Any, groups: int) -> list[Any]:
    """One value for all groups, or a list with one for each. Raises ArgumentError for another number of them."""
    many = list(value) if isinstance(value, (list, tuple)) else [value] * groups
    if len(many) != groups:
        raise ArgumentError(f"{schedule}: {name} has {len(many)} values, but the optimizer has {groups} groups")
    return many
