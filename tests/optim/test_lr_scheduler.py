"""Learning rates beside PyTorch's, step by step, and after a resumption; what schedules refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from minires import Tensor, nn, optim
from minires.errors import ArgumentError, CheckpointError
from minires.optim.lr_scheduler import LRScheduler, MultiStepLR
from tests.oracle import torch

pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # it misses a step of SGD
STEPS = 60
S = optim.lr_scheduler


def warm_up_then_cosine(s: Any, optimizer: Any, start: float = 0.1, T_max: int = 30, eta_min: float = 1e-3) -> Any:
    parts = [s.LinearLR(optimizer, start, total_iters=5), s.CosineAnnealingLR(optimizer, T_max, eta_min=eta_min)]
    return s.SequentialLR(optimizer, parts, [5])


def three_in_a_row(
    s: Any, optimizer: Any, factor: float = 0.5, gamma: float = 0.9, milestones: Sequence[int] = (7, 31)
) -> Any:
    parts = [s.ConstantLR(optimizer, factor, 10), s.ExponentialLR(optimizer, gamma), s.MultiStepLR(optimizer, [3, 9])]
    return s.SequentialLR(optimizer, parts, list(milestones))


def named(name: str, *args: Any, **kwargs: Any) -> Callable[[Any, Any], Any]:
    return lambda s, optimizer: getattr(s, name)(optimizer, *args, **kwargs)


CASES: dict[str, Callable[[Any, Any], Any]] = {  # of a library's schedules and its optimizer
    "multi-paper": named("MultiStepLR", [30, 45]),
    "multi-unsorted": named("MultiStepLR", [40, 10, 20], 0.5),
    "multi-twice": named("MultiStepLR", [5, 5, 50], 0.3),
    "multi-at-once": named("MultiStepLR", [0, 1], gamma=0.1),
    "multi-never": named("MultiStepLR", []),
    "multi-warm": named("MultiStepLR", [2, 4, 6, 8], 1.5),
    "step": named("StepLR", 7),
    "step-each": named("StepLR", step_size=1, gamma=0.95),
    "step-late": named("StepLR", 100, 0.5),
    "constant": named("ConstantLR"),
    "constant-long": named("ConstantLR", factor=0.1, total_iters=20),
    "constant-one": named("ConstantLR", 1.0, 1),
    "linear": named("LinearLR"),
    "linear-warm-up": named("LinearLR", start_factor=0.01, total_iters=20),
    "linear-down": named("LinearLR", 1.0, end_factor=0.1, total_iters=40),
    "linear-to-zero": named("LinearLR", 0.5, 0.0, 30),
    "exponential": named("ExponentialLR", 0.9),
    "exponential-up": named("ExponentialLR", gamma=1.05),
    "polynomial": named("PolynomialLR"),
    "polynomial-square": named("PolynomialLR", total_iters=45, power=2.0),
    "polynomial-root": named("PolynomialLR", 50, 0.5),
    "cosine": named("CosineAnnealingLR", STEPS),
    "cosine-past-T_max": named("CosineAnnealingLR", T_max=13, eta_min=0.01),  # up and down again
    "cosine-least-above": named("CosineAnnealingLR", 25, eta_min=0.2),
    "cosine-one": named("CosineAnnealingLR", 1, 0.001),
    "restarts": named("CosineAnnealingWarmRestarts", 10),
    "restarts-longer": named("CosineAnnealingWarmRestarts", T_0=4, T_mult=2, eta_min=0.01),
    "restarts-thrice": named("CosineAnnealingWarmRestarts", 1, 3),
    "lambda": named("LambdaLR", lambda epoch: 0.95**epoch),
    "lambda-each": named("LambdaLR", [lambda epoch: 1 / (epoch + 1), lambda epoch: epoch % 7]),
    "sequence-warm-up": warm_up_then_cosine,
    "sequence-slower": partial(warm_up_then_cosine, start=0.01, T_max=50, eta_min=0.0),
    "three-in-a-row": three_in_a_row,
    "three-others": partial(three_in_a_row, factor=0.3, gamma=0.8, milestones=[20, 31]),
    "cycle": named("OneCycleLR", 0.3, total_steps=STEPS),
    "cycle-longer": named("OneCycleLR", 0.3, epochs=9, steps_per_epoch=8),
    "cycle-linear": named("OneCycleLR", 0.3, STEPS, anneal_strategy="linear", pct_start=0.5),
    "cycle-each": named("OneCycleLR", [0.3, 0.7], STEPS, base_momentum=[0.7, 0.8], max_momentum=[0.9, 0.99]),
    "cycle-three": named("OneCycleLR", 0.3, STEPS, three_phase=True),
    "cycle-three-linear": named("OneCycleLR", 0.3, 70, pct_start=0.2, anneal_strategy="linear", three_phase=True),
    "cycle-factors": named("OneCycleLR", 0.3, STEPS, div_factor=5.0, final_div_factor=10.0, cycle_momentum=False),
    "cycle-down": named("OneCycleLR", 0.3, STEPS, pct_start=0.0),
    "cycle-three-late": named("OneCycleLR", 0.3, STEPS, pct_start=0.45, three_phase=True),
    "cycle-last-step": named("OneCycleLR", 0.3, STEPS - 1, anneal_strategy="linear"),  # PyTorch's runs on past the end
}
every_case = pytest.mark.parametrize("case", CASES)


def optimizers(kind: str = "SGD") -> tuple[Any, Any]:
    """Two groups of different rates, here and in PyTorch."""
    settings = {"lr": 0.1} | ({"momentum": 0.9} if kind == "SGD" else {})
    made = []
    for library, parameter in (optim, lambda: nn.Parameter(np.ones(1))), (torch.optim, lambda: torch.nn.Parameter(
            torch.ones(1))):  # fmt: skip
        groups = [{"params": [parameter()]}, {"params": [parameter()], "lr": 0.025}]
        made.append(getattr(library, kind)(groups, **settings))
    return made[0], made[1]


def values(optimizer: Any) -> list[float]:
    """The rates and momenta of the groups."""
    momenta = [group["momentum"] if "momentum" in group else group["betas"] for group in optimizer.param_groups]
    return [*(group["lr"] for group in optimizer.param_groups), *np.ravel(momenta)]


def ours(case: str, kind: str = "SGD", resume_at: int | None = None, with_optimizer: bool = True) -> np.ndarray:
    """The values of each step. At `resume_at` the schedule is saved as JSON and made anew, with its optimizer."""
    optimizer = optimizers(kind)[0]
    schedule = CASES[case](S, optimizer)
    found = []
    for step in range(STEPS):
        if step == resume_at:
            states = json.loads(json.dumps([optimizer.state_dict(), schedule.state_dict()]))
            optimizer = optimizers(kind)[0]
            if with_optimizer:
                optimizer.load_state_dict(states[0])
            schedule = CASES[case](S, optimizer)
            schedule.load_state_dict(states[1])
        found.append(values(optimizer))
        assert schedule.get_last_lr() == found[-1][:2]
        assert schedule.last_epoch == step
        if step + 1 < STEPS:
            schedule.step()
    return np.array(found)


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
@every_case
def test_sixty_steps_equal_pytorchs(case: str, kind: str) -> None:
    optimizer = optimizers(kind)[1]
    schedule = CASES[case](torch.optim.lr_scheduler, optimizer)
    theirs = []
    for step in range(STEPS):
        theirs.append(values(optimizer))
        if step + 1 < STEPS:
            schedule.step()
    found = ours(case, kind)
    assert found.shape == (STEPS, 4 if kind == "SGD" else 6)
    # near 0 PyTorch's recursions leave some 1e-17 of the first rate
    np.testing.assert_allclose(found, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("with_optimizer", [True, False])
@pytest.mark.parametrize("resume_at", [0, 1, 30, 31, 59])
@every_case
def test_a_resumed_schedule_goes_on(case: str, resume_at: int, with_optimizer: bool) -> None:
    """Bit for bit, and also where the optimizer starts anew."""
    np.testing.assert_array_equal(ours(case, "SGD", resume_at, with_optimizer), ours(case))


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("lambda")])  # functions are not saved
def test_a_state_brings_its_settings(case: str) -> None:
    """It goes on alike in a schedule of its kind that was made with other settings."""
    kind = case.partition("-")[0]
    other = next(n for n in CASES if n.partition("-")[0] == kind and n != case)
    made = [CASES[n](S, optimizers()[0]) for n in (case, other)]
    made[0].step(20)
    made[1].load_state_dict(json.loads(json.dumps(made[0].state_dict())))
    for _ in range(30):
        assert made[0].get_last_lr() == made[1].get_last_lr()
        for schedule in made:
            schedule.step()


@every_case
def test_state_is_that_of_the_formula_not_of_the_way(case: str) -> None:
    """A schedule that has gone to a step at once is like one that took every step."""
    optimizer, other = optimizers()[0], optimizers()[0]
    schedule, jumped = CASES[case](S, optimizer), CASES[case](S, other)
    for _ in range(42):
        schedule.step()
    jumped.step(42)
    assert values(optimizer) == values(other)


def test_warm_restarts_take_fractions_of_epochs() -> None:
    mine, theirs = optimizers()
    make = named("CosineAnnealingWarmRestarts", 4, 2)
    schedule, other = make(S, mine), make(torch.optim.lr_scheduler, theirs)
    for epoch in np.arange(0, 30, 0.3).tolist():
        schedule.step(epoch)
        other.step(epoch)
        np.testing.assert_allclose(values(mine), values(theirs), rtol=1e-12, atol=1e-14)


def test_sequences_nest() -> None:
    """PyTorch's inner sequence is a step ahead from its second epoch on."""
    optimizer, plain = optimizers()[0], optimizers()[0]
    inner, alone = warm_up_then_cosine(S, optimizer), warm_up_then_cosine(S, plain)
    schedule = S.SequentialLR(optimizer, [inner, S.StepLR(optimizer, 4, 0.5)], [20])
    for _ in range(20):
        assert values(optimizer) == values(plain)
        schedule.step()
        alone.step()
    rates = []
    for _ in range(8):
        rates.append(schedule.get_last_lr()[0])
        schedule.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
        schedule.step()
    assert rates == [0.1] * 4 + [0.05] * 4


def test_one_cycle_ends() -> None:
    mine, theirs = optimizers()
    make = named("OneCycleLR", 0.3, 10)
    schedule, other = make(S, mine), make(torch.optim.lr_scheduler, theirs)
    for _ in range(10):
        schedule.step()
        other.step()
    before = values(mine)
    with pytest.raises(ValueError, match="total steps"):
        other.step()
    with pytest.raises(ArgumentError, match="OneCycleLR: step 11 of 10; total_steps counts all batches"):
        schedule.step()
    assert (values(mine), schedule.last_epoch) == (before, 10)


@pytest.mark.parametrize("settings", [{"pct_start": 1.0}, {"pct_start": 0.1}, {"total_steps": 1}], ids=str)
def test_one_cycle_with_a_phase_of_no_steps(settings: dict[str, Any]) -> None:
    """Where PyTorch divides by 0."""
    optimizer = optimizers()[0]
    schedule = S.OneCycleLR(optimizer, 0.3, **{"total_steps": 10, **settings})
    rates = [schedule.get_last_lr()[0]]
    for _ in range(schedule.total_steps):
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    assert all(0 < rate <= 0.3 for rate in rates)


def test_a_schedule_needs_a_rate() -> None:
    with pytest.raises(NotImplementedError):
        LRScheduler(optimizers()[0])


def test_a_schedule_of_ones_own() -> None:
    class Halves(LRScheduler):
        """Half the rate at each step."""

        def rate(self, initial: float, epoch: float) -> float:
            return initial / 2**epoch

    schedule = Halves(optimizers()[0])
    schedule.step()
    schedule.step()
    assert schedule.get_last_lr() == [0.025, 0.00625]
    assert schedule.state_dict() == {"base_lrs": [0.1, 0.025], "last_epoch": 2}


def test_a_group_added_later_follows_the_schedule() -> None:
    first, second = (Tensor([1.0], requires_grad=True) for _ in range(2))
    sgd = optim.SGD([first], lr=0.1)
    scheduler = MultiStepLR(sgd, np.array([2]))
    scheduler.step()
    early = scheduler.state_dict()
    sgd.add_param_group({"params": [second], "lr": 0.5})
    scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([0.01, 0.05])
    assert early["base_lrs"] == [0.1]
    scheduler.load_state_dict(early)
    assert scheduler.get_last_lr() == [0.1, 0.5]


def test_epochs_of_any_number_type_can_be_saved() -> None:
    schedule = S.StepLR(optimizers()[0], 2)
    schedule.step(np.int64(3))
    assert json.loads(json.dumps(schedule.state_dict()))["last_epoch"] == 3


REFUSED: list[tuple[Callable[[Any], Any], str]] = [
    (lambda o: S.StepLR(o, 0), "StepLR: step_size must be an int of at least 1, not 0"),
    (lambda o: S.StepLR(o, 2.5), "StepLR: step_size must be an int of at least 1, not 2.5"),
    (lambda o: S.StepLR(o, 5, -0.1), "StepLR: gamma must be at least 0, not -0.1"),
    (lambda o: S.MultiStepLR(o, [5], math.nan), "MultiStepLR: gamma must be at least 0, not nan"),
    (lambda o: S.ExponentialLR(o, -1), "ExponentialLR: gamma"),
    (lambda o: S.ExponentialLR(o, "0.9"), "ExponentialLR: gamma must be at least 0, not '0.9'"),
    (lambda o: S.ConstantLR(o, 1.5), "ConstantLR: factor must be between 0 and 1, not 1.5"),
    (lambda o: S.ConstantLR(o, total_iters=0), "ConstantLR: total_iters"),
    (lambda o: S.LinearLR(o, 2), "LinearLR: start_factor must be between 0 and 1"),
    (lambda o: S.LinearLR(o, end_factor=-1), "LinearLR: end_factor"),
    (lambda o: S.LinearLR(o, total_iters=0), "LinearLR: total_iters"),
    (lambda o: S.PolynomialLR(o, power=-1), "PolynomialLR: power"),
    (lambda o: S.PolynomialLR(o, 0), "PolynomialLR: total_iters"),
    (lambda o: S.CosineAnnealingLR(o, 0), "CosineAnnealingLR: T_max must be an int of at least 1, not 0"),
    (lambda o: S.CosineAnnealingWarmRestarts(o, 0), "CosineAnnealingWarmRestarts: T_0"),
    (lambda o: S.CosineAnnealingWarmRestarts(o, 1, 0), "CosineAnnealingWarmRestarts: T_mult"),
    (lambda o: S.LambdaLR(o, [abs]), "LambdaLR: lr_lambda has 1 values, but the optimizer has 2 groups"),
    (lambda o: S.OneCycleLR(o, 0.1), "OneCycleLR: give total_steps, or epochs and steps_per_epoch"),
    (lambda o: S.OneCycleLR(o, 0.1, 0), "OneCycleLR: total_steps"),
    (lambda o: S.OneCycleLR(o, 0.1, epochs=0, steps_per_epoch=5), "OneCycleLR: epochs"),
    (lambda o: S.OneCycleLR(o, 0.1, epochs=5, steps_per_epoch=-5), "OneCycleLR: steps_per_epoch"),
    (lambda o: S.OneCycleLR(o, -0.1, 10), "OneCycleLR: max_lr must be at least 0, not -0.1"),
    (lambda o: S.OneCycleLR(o, [0.1], 10), "OneCycleLR: max_lr has 1 values, but the optimizer has 2 groups"),
    (lambda o: S.OneCycleLR(o, 0.1, 10, pct_start=1.5), "OneCycleLR: pct_start must be between 0 and 1"),
    (lambda o: S.OneCycleLR(o, 0.1, 10, anneal_strategy="sin"), "must be one of cos, linear, not 'sin'"),
    (lambda o: S.OneCycleLR(o, 0.1, 10, max_momentum=2), "OneCycleLR: max_momentum must be between 0 and 1"),
    (lambda o: S.OneCycleLR(o, 0.1, 10, base_momentum=[0.1]), "OneCycleLR: base_momentum has 1 values"),
    (lambda o: S.OneCycleLR(o, 0.1, 10, div_factor=0), "OneCycleLR: div_factor and final_div_factor must be above 0"),
    (lambda o: S.SequentialLR(o, [S.StepLR(o, 1)], [5]), "1 schedulers and 1 milestones"),
    (lambda o: S.SequentialLR(o, [S.StepLR(o, 1)] * 3, [5, 3]), "milestones must not fall"),
    (lambda o: S.SequentialLR(o, [S.StepLR(optimizers()[0], 1)], []), "the StepLR is for another optimizer"),
    (lambda o: S.SequentialLR(o, [S.ReduceLROnPlateau(o)], []), "ReduceLROnPlateau needs a metric"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_refused(make: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make(optimizers()[0])


def test_one_cycle_needs_a_momentum() -> None:
    class Plain(optim.Optimizer):
        pass

    plain = Plain([nn.Parameter(np.ones(1))], {"lr": 0.1})
    with pytest.raises(ArgumentError, match="OneCycleLR: Plain has no momentum: pass cycle_momentum=False"):
        S.OneCycleLR(plain, 0.1, 10)
    S.OneCycleLR(plain, 0.1, 10, cycle_momentum=False).step()


def test_the_state_of_another_schedule_is_refused() -> None:
    optimizer = optimizers()[0]
    one = MultiStepLR(optim.SGD([nn.Parameter(np.ones(1))]), [1])
    two, sequence = MultiStepLR(optimizer, [1]), warm_up_then_cosine(S, optimizer)
    with pytest.raises(CheckpointError, match=r"StepLR: state of milestones, .*; its own is step_size, gamma, "):
        S.StepLR(optimizer, 1).load_state_dict(one.state_dict())
    with pytest.raises(CheckpointError, match="MultiStepLR: state of 2 parameter groups, but the optimizer has 1"):
        one.load_state_dict(two.state_dict())
    with pytest.raises(CheckpointError, match="StepLR: no schedule's state dict, but NoneType"):
        S.StepLR(optimizer, 1).load_state_dict(None)  # type: ignore[arg-type]
    state = sequence.state_dict()
    with pytest.raises(CheckpointError, match="state of 1 schedulers, but there are 2"):
        sequence.load_state_dict({**state, "schedulers": state["schedulers"][:1]})
    with pytest.raises(CheckpointError, match="LinearLR: state of T_max"):
        sequence.load_state_dict({**state, "schedulers": state["schedulers"][::-1]})
