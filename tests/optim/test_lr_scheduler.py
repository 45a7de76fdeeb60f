"""Learning rates beside PyTorch's, epoch by epoch, and after a resumption."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from minires import Tensor, nn, optim
from minires.optim.lr_scheduler import LRScheduler, MultiStepLR
from tests.oracle import torch

EPOCHS = 60
CASES = {
    "paper": ([30, 45], 0.1),
    "unsorted": ([40, 10, 20], 0.5),
    "twice": ([5, 5, 50], 0.3),
    "at once": ([0, 1], 0.1),
    "never": ([], 0.1),
    "warm": ([2, 4, 6, 8], 1.5),
}


def optimizers() -> tuple[optim.SGD, Any]:
    """Two groups of different rates, here and in PyTorch."""
    ours = [{"params": [nn.Parameter(np.ones(1))]}, {"params": [nn.Parameter(np.ones(1))], "lr": 0.025}]
    theirs = [
        {"params": [torch.nn.Parameter(torch.ones(1))]},
        {"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.025},
    ]
    return optim.SGD(ours, lr=0.1), torch.optim.SGD(theirs, lr=0.1)


def our_rates(case: str, resume_at: int | None = None) -> np.ndarray:
    """The rates of each epoch; at `resume_at` optimizer and schedule are saved, and both are made anew."""
    milestones, gamma = CASES[case]
    optimizer = optimizers()[0]
    schedule = MultiStepLR(optimizer, milestones, gamma)
    rates = []
    for epoch in range(EPOCHS):
        if epoch == resume_at:
            states = optimizer.state_dict(), schedule.state_dict()
            optimizer = optimizers()[0]
            optimizer.load_state_dict(states[0])
            schedule = MultiStepLR(optimizer, [7], 0.9)
            schedule.load_state_dict(states[1])
        rates.append([group["lr"] for group in optimizer.param_groups])
        assert schedule.get_last_lr() == rates[-1]
        schedule.step()
    return np.array(rates)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # PyTorch misses a step of its optimizer
@pytest.mark.parametrize("case", CASES)
def test_multi_step_equals_pytorchs(case: str) -> None:
    optimizer = optimizers()[1]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, *CASES[case])
    theirs = []
    for _ in range(EPOCHS):
        theirs.append([group["lr"] for group in optimizer.param_groups])
        schedule.step()
    ours = our_rates(case)
    assert ours.shape == (EPOCHS, 2)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("resume_at", [0, 1, 30, 31, 59])
def test_a_resumed_schedule_goes_on(case: str, resume_at: int) -> None:
    np.testing.assert_array_equal(our_rates(case, resume_at), our_rates(case))


def test_a_schedule_needs_a_rate() -> None:
    with pytest.raises(NotImplementedError):
        LRScheduler(optimizers()[0])


def test_a_group_added_later_follows_the_schedule() -> None:
    first, second = (Tensor([1.0], requires_grad=True) for _ in range(2))
    sgd = optim.SGD([first], lr=0.1)
    scheduler = MultiStepLR(sgd, np.array([2]))
    scheduler.step()
    sgd.add_param_group({"params": [second], "lr": 0.5})
    scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([0.01, 0.05])
    assert json.dumps(scheduler.state_dict())
