"""ReduceLROnPlateau beside PyTorch's, over a metric that falls, rests, jumps and is NaN."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest

from minires import Tensor, nn, optim
from minires.errors import ArgumentError
from minires.optim.lr_scheduler import ReduceLROnPlateau
from tests.oracle import torch

SETTINGS = [
    {"mode": mode, "threshold": threshold, "threshold_mode": threshold_mode, **others}
    for mode, threshold, threshold_mode, others in itertools.product(
        ("min", "max"),
        (1e-4, 0.05),
        ("rel", "abs"),
        (
            {},
            {"patience": 2, "factor": 0.5},
            {"patience": 0, "cooldown": 3, "factor": 0.7},
            {"patience": 1, "min_lr": [0.02, 0.001], "factor": 0.3},
            {"patience": 1, "min_lr": 0.004, "eps": 1e-3},
        ),
    )
]


def metrics() -> list[float]:
    rng = np.random.default_rng(3)
    falling = np.exp(-np.arange(20) / 4) + 0.02 * rng.standard_normal(20)
    resting = np.full(20, falling[-1]) - 1e-6 * np.arange(20)
    rough = rng.uniform(-1, 1, 40)
    rough[[5, 6, 17]] = np.nan, np.inf, -np.inf
    return [*falling.tolist(), *resting.tolist(), *rough.tolist()]


def groups(parameter: Any) -> list[dict[str, Any]]:
    return [{"params": [parameter()]}, {"params": [parameter()], "lr": 0.025}]


def ours() -> optim.SGD:
    return optim.SGD(groups(lambda: nn.Parameter(np.ones(1))), lr=0.1)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: ",".join(map(str, s.values())))
def test_eighty_rates_equal_pytorchs(settings: dict[str, Any]) -> None:
    """Also where schedule and optimizer are made anew from JSON, at some step in each phase."""
    mine = ours()
    theirs = torch.optim.SGD(groups(lambda: torch.nn.Parameter(torch.ones(1))), lr=0.1)
    schedule = ReduceLROnPlateau(mine, **settings)
    other = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **settings)
    changes = 0
    for step, metric in enumerate(metrics()):
        before = schedule.get_last_lr()
        if step in (0, 17, 33, 47, 60):
            state = json.loads(json.dumps(schedule.state_dict()))
            mine = ours()
            schedule = ReduceLROnPlateau(mine)
            schedule.load_state_dict(state)
            assert schedule.get_last_lr() == before
        schedule.step(Tensor(np.array(metric)) if step % 2 else metric)
        other.step(metric)
        rates = [group["lr"] for group in theirs.param_groups]
        np.testing.assert_allclose(schedule.get_last_lr(), rates, rtol=1e-12)
        changes += schedule.get_last_lr() != before
    assert changes
    assert schedule.last_epoch == len(metrics())


def test_defaults_are_pytorchs() -> None:
    other = torch.optim.lr_scheduler.ReduceLROnPlateau(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))]))
    schedule = ReduceLROnPlateau(ours())
    for name in ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "eps", "best"):
        assert getattr(schedule, name) == getattr(other, name)


def test_a_group_added_later_is_reduced_too() -> None:
    sgd = ours()
    schedule = ReduceLROnPlateau(sgd, patience=0, min_lr=0.01)
    sgd.add_param_group({"params": [nn.Parameter(np.ones(2))], "lr": 1.0})
    schedule.step(1.0)
    schedule.step(1.0)
    assert schedule.get_last_lr() == pytest.approx([0.01, 0.01, 0.1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "lower"}, "ReduceLROnPlateau: mode must be one of min, max, not 'lower'"),
        ({"threshold_mode": "x"}, "threshold_mode must be one of rel, abs, not 'x'"),
        ({"factor": 1.0}, "factor must be below 1, not 1.0"),
        ({"factor": -0.5}, "factor must be at least 0, not -0.5"),
        ({"patience": -1}, "patience must be an int of at least 0, not -1"),
        ({"cooldown": 1.5}, "cooldown must be an int of at least 0, not 1.5"),
        ({"threshold": -1}, "threshold must be at least 0, not -1"),
        ({"eps": float("nan")}, "eps must be at least 0, not nan"),
        ({"min_lr": [0.1]}, "min_lr has 1 values, but the optimizer has 2 groups"),
        ({"min_lr": -1}, "min_lr must be at least 0, not -1"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        ReduceLROnPlateau(ours(), **settings)
