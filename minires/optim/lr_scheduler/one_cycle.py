"""The schedule of rate and momentum together."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import ArgumentError
from ..optimizer import Optimizer
from .scheduler import LRScheduler, between, choice, cosine, count, floats, per_group


class OneCycleLR(LRScheduler):
    """Up to `max_lr` and down to nearly 0 in one run, the momentum the other way (Smith and Topin, 2018).

    The rate goes from max_lr / div_factor to max_lr in the first part `pct_start` of the steps, and from there to
    max_lr / div_factor / final_div_factor in the rest. With `three_phase` it goes back to the start in as many steps as
    it took up, and from there to the end. `step` is called after each batch: `total_steps` times, or
    `epochs * steps_per_epoch`. Raises ArgumentError beyond, and for settings that make no sense.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        name, groups = "OneCycleLR", optimizer.param_groups
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ArgumentError("OneCycleLR: give total_steps, or epochs and steps_per_epoch")
            total_steps = count(name, "epochs", epochs) * count(name, "steps_per_epoch", steps_per_epoch)
        self.total_steps = count(name, "total_steps", total_steps)
        self.anneal_strategy = choice(name, "anneal_strategy", anneal_strategy, ("cos", "linear"))
        up = between(name, "pct_start", pct_start, high=1) * self.total_steps
        self.ends = [up - 1, *([2 * up - 2] if three_phase else []), self.total_steps - 1]
        self.div_factor, self.final_div_factor = float(div_factor), float(final_div_factor)
        if not (self.div_factor > 0 and self.final_div_factor > 0):
            raise ArgumentError("OneCycleLR: div_factor and final_div_factor must be above 0")
        if cycle_momentum and not all("momentum" in group or "betas" in group for group in groups):
            raise ArgumentError(f"OneCycleLR: {type(optimizer).__name__} has no momentum: pass cycle_momentum=False")
        self.cycle_momentum = bool(cycle_momentum)
        self.base_momentum, self.max_momentum = floats(base_momentum), floats(max_momentum)
        for setting, value in {"base_momentum": base_momentum, "max_momentum": max_momentum}.items():
            for v in per_group(name, setting, value, len(groups)):
                between(name, setting, v, high=1)
        for group, rate in zip(groups, per_group(name, "max_lr", max_lr, len(groups)), strict=True):
            group["initial_lr"] = between(name, "max_lr", rate) / self.div_factor
        super().__init__(optimizer)

    def rate(self, initial: float, epoch: float) -> float:
        if epoch > self.total_steps:
            raise ArgumentError(f"OneCycleLR: step {epoch} of {self.total_steps}; total_steps counts all batches")
        back = [initial] if len(self.ends) == 3 else []
        return self._along([initial, initial * self.div_factor, *back, initial / self.final_div_factor], epoch)

    def go_to(self, epoch: float) -> None:
        super().go_to(epoch)
        if not self.cycle_momentum:
            return
        groups = self.optimizer.param_groups
        lows = per_group("OneCycleLR", "base_momentum", self.base_momentum, len(groups))
        highs = per_group("OneCycleLR", "max_momentum", self.max_momentum, len(groups))
        for group, low, high in zip(groups, lows, highs, strict=True):
            momentum = self._along([high, low, high, high], epoch)
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum

    def _along(self, points: list[float], epoch: float) -> float:
        """The value on the way through `points`, each phase of which has its end."""
        last = len(self.ends) - 1
        phase = next((i for i, end in enumerate(self.ends) if epoch <= end), last)
        begin = self.ends[phase - 1] if phase else 0
        length = self.ends[phase] - begin
        way = (epoch - begin) / length if length else 1.0
        start, end = points[phase : phase + 2]
        return cosine(start, end, way) if self.anneal_strategy == "cos" else start + (end - start) * way
