"""One schedule after another."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

from ...errors import ArgumentError, CheckpointError
from ..optimizer import Optimizer
from .plateau import ReduceLROnPlateau
from .scheduler import LRScheduler


class SequentialLR(LRScheduler):
    """One schedule after the other: the next one takes over, at its own epoch 0, at each of `milestones`.

    All are made for the same optimizer before; this one puts the rates back to the first one's. Raises ArgumentError
    where they do not fit, and for ReduceLROnPlateau, whose step takes a metric.
    """

    apart = ("optimizer", "schedulers")

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Iterable[int]) -> None:
        self.schedulers, self.milestones = list(schedulers), [int(m) for m in milestones]
        if len(self.schedulers) != len(self.milestones) + 1:
            raise ArgumentError(
                f"SequentialLR: {len(self.schedulers)} schedulers and {len(self.milestones)} milestones; "
                "a milestone is needed between each two"
            )
        if self.milestones != sorted(self.milestones):
            raise ArgumentError(f"SequentialLR: milestones must not fall, but are {self.milestones}")
        for s in self.schedulers:
            if s.optimizer is not optimizer:
                raise ArgumentError(f"SequentialLR: the {type(s).__name__} is for another optimizer")
            if isinstance(s, ReduceLROnPlateau):
                raise ArgumentError("SequentialLR: ReduceLROnPlateau needs a metric; step it by itself")
        super().__init__(optimizer)

    def go_to(self, epoch: float) -> None:
        index = bisect_right(self.milestones, epoch)
        self.schedulers[index].go_to(epoch - self.milestones[index - 1] if index else epoch)
        self.last_epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "schedulers": [s.state_dict() for s in self.schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.check_state(state_dict)
        for s, state in zip(self.schedulers, state_dict["schedulers"], strict=True):
            s.load_state_dict(state)
        super().load_state_dict(state_dict)

    def check_state(self, state_dict: dict[str, Any]) -> None:
        super().check_state(state_dict)
        states = state_dict["schedulers"]
        if len(states) != len(self.schedulers):
            raise CheckpointError(
                f"SequentialLR: state of {len(states)} schedulers, but there are {len(self.schedulers)}"
            )
        for s, state in zip(self.schedulers, states, strict=True):
            s.check_state(state)
