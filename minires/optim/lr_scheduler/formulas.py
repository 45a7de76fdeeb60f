"""The schedules that are one formula each, of the initial rate and the epoch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

from ..optimizer import Optimizer
from .scheduler import LRScheduler, between, cosine, count, per_group


class LambdaLR(LRScheduler):
    """The initial rate times `lr_lambda(epoch)`; one function, or one for each group. They are not saved."""

    apart = ("optimizer", "lr_lambda")

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Callable[[float], float] | Sequence[Callable[[float], float]]
    ) -> None:
        self.lr_lambda = lr_lambda
        super().__init__(optimizer)

    def rates(self, epoch: float) -> list[float]:
        many = per_group("LambdaLR", "lr_lambda", self.lr_lambda, len(self.base_lrs))
        return [initial * function(epoch) for initial, function in zip(self.base_lrs, many, strict=True)]


class StepLR(LRScheduler):
    """The rate times `gamma` every `step_size` steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size, self.gamma = count("StepLR", "step_size", step_size), between("StepLR", "gamma", gamma)
        super().__init__(optimizer)

    def rate(self, initial: float, epoch: float) -> float:
        return initial * self.gamma ** (epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """The rate times `gamma` at each of `milestones`, counted in steps."""

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1) -> None:
        self.milestones, self.gamma = sorted(int(m) for m in milestones), between("MultiStepLR", "gamma", gamma)
        super().__init__(optimizer)

    def rate(self, initial: float, epoch: float) -> float:
        return initial * self.gamma ** bisect_right(self.milestones, epoch)


class ExponentialLR(LRScheduler):
    """The rate times `gamma` at each step."""

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = between("ExponentialLR", "gamma", gamma)
        super().__init__(optimizer)

    def rate(self, initial: float, epoch: float) -> float:
        return initial * self.gamma**epoch


class ConstantLR(LRScheduler):
    """The rate times `factor` for `total_iters` steps, then the initial rate."""

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5) -> None:
        self.factor = between("ConstantLR", "factor", factor, high=1)
        self.total_iters = count("ConstantLR", "total_iters", total_iters)
        super().__init__(optimizer)

    def rate(self, initial: float, epoch: float) -> float:
        return initial * self.factor if epoch < self.total_iters else initial


class LinearLR(LRScheduler):
    """A straight line from `start_factor` to `end_factor` times the rate, over `total_iters` steps: the warm-up."""

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5
    ) -> None:
        self.start_factor = between("LinearLR", "start_factor", start_factor, high=1)
        self.end_factor = between("LinearLR", "end_factor", end_factor, high=1)
        self.total_iters = count("LinearLR", "total_iters", total_iters)
        super().__init__(optimizer)

    def rate(self, initial: float, epoch: float) -> float:
        way = min(epoch, self.total_iters) / self.total_iters
        return initial * (self.start_factor + (self.end_factor - self.start_factor) * way)


class PolynomialLR(LRScheduler):
    """The rate times (1 - epoch / total_iters)^power, down to 0 after `total_iters` steps."""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0) -> None:
        self.total_iters = count("PolynomialLR", "total_iters", total_iters)
        self.power = between("PolynomialLR", "power", power)
        super().__init__(optimizer)

    def rate(self, initial: float, epoch: float) -> float:
        return initial * (1 - min(epoch, self.total_iters) / self.total_iters) ** self.power


class CosineAnnealingLR(LRScheduler):
    """Half a wave of the cosine down to `eta_min` in `T_max` steps, and up again in as many (SGDR, section 3).

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, without the restarts.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max, self.eta_min = count("CosineAnnealingLR", "T_max", T_max), float(eta_min)
        super().__init__(optimizer)

    def rate(self, initial: float, epoch: float) -> float:
        return cosine(initial, self.eta_min, epoch / self.T_max)


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half waves of the cosine down to `eta_min`, of T_0 steps, T_0 * T_mult, T_0 * T_mult^2, ... (SGDR, section 3)."""

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0) -> None:
        self.T_0 = count("CosineAnnealingWarmRestarts", "T_0", T_0)
        self.T_mult = count("CosineAnnealingWarmRestarts", "T_mult", T_mult)
        self.eta_min = float(eta_min)
        super().__init__(optimizer)

    def rate(self, initial: float, epoch: float) -> float:
        length = self.T_0
        if self.T_mult == 1:
            epoch %= length  # what the loop would find, one round at a time
        while epoch >= length:
            epoch, length = epoch - length, length * self.T_mult
        return cosine(initial, self.eta_min, epoch / length)
