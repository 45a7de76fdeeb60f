"""Initial values: their distributions, and PyTorch's conventions for layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import minires
from minires import Tensor, nn
from minires.errors import ArgumentError, ShapeError
from minires.nn import init
from tests.oracle import torch

SHAPES = {"linear": (200, 150), "conv": (3, 5, 40, 60)}  # (O, I) and (KH, KW, I, O)
FANS = {"linear": (150, 200), "conv": (3 * 5 * 40, 3 * 5 * 60)}


def empty(shape: tuple[int, ...]) -> Tensor:
    return Tensor(np.full(shape, np.nan, np.float32))


def check_distribution(values: np.ndarray, std: float, bound: float | None) -> None:
    """Mean 0 and the deviation, within five standard errors; uniform values fill [-bound, bound] and nothing else."""
    n = values.size
    kurtosis = 3.0 if bound is None else 1.8
    assert abs(values.mean(dtype=np.float64)) < 5 * std / math.sqrt(n)
    assert values.std(dtype=np.float64) == pytest.approx(std, rel=5 * math.sqrt((kurtosis - 1) / (4 * n)))
    if bound is None:
        assert abs(values).max() > 3 * std
    else:
        assert bound * (1 - 20 / n) < abs(values).max() <= np.float32(bound)


@pytest.mark.parametrize("kind", SHAPES)
def test_fans_are_those_of_pytorchs_layout(kind: str) -> None:
    ours = empty(SHAPES[kind])
    theirs = torch.empty(*(np.transpose(ours.data, (3, 2, 0, 1)).shape if kind == "conv" else ours.shape))
    assert init.fan_in_and_out(ours) == FANS[kind] == torch.nn.init._calculate_fan_in_and_fan_out(theirs)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
@pytest.mark.parametrize(
    ("nonlinearity", "a", "gain"),
    [("relu", 0, math.sqrt(2)), ("linear", 0, 1.0), ("leaky_relu", 0, math.sqrt(2)), ("leaky_relu", 2, math.sqrt(0.4))],
)
@pytest.mark.parametrize("uniform", [False, True])
def test_kaiming(
    kind: str, mode: str, nonlinearity: str, a: float, gain: float, uniform: bool, rng: np.random.Generator
) -> None:
    fill = init.kaiming_uniform_ if uniform else init.kaiming_normal_
    t = empty(SHAPES[kind])
    assert fill(t, a=a, mode=mode, nonlinearity=nonlinearity, generator=rng) is t
    std = gain / math.sqrt(FANS[kind][mode == "fan_out"])
    check_distribution(t.data, std, math.sqrt(3) * std if uniform else None)
    assert t.dtype == np.float32
    assert gain == pytest.approx(torch.nn.init.calculate_gain(nonlinearity, a), rel=1e-15)


@pytest.mark.parametrize(
    ("make", "make_theirs", "fan"),
    [
        (lambda g: nn.Conv2d(30, 70, (3, 5), generator=g), lambda: torch.nn.Conv2d(30, 70, (3, 5)), 450),
        (lambda g: nn.Linear(200, 300, generator=g), lambda: torch.nn.Linear(200, 300), 200),
    ],
)
def test_layers_start_as_pytorchs(make: Any, make_theirs: Any, fan: int, rng: np.random.Generator) -> None:
    """Weight and bias are uniform within 1/sqrt(fan in), here and there."""
    torch.manual_seed(0)
    bound = 1 / math.sqrt(fan)
    theirs = make_theirs()
    for name, p in make(rng).named_parameters():
        check_distribution(p.data, bound / math.sqrt(3), bound)
        expected = getattr(theirs, name).detach().numpy()
        assert expected.size == p.numel()
        check_distribution(expected, bound / math.sqrt(3), bound)


def test_normal_and_uniform(rng: np.random.Generator) -> None:
    check_distribution(init.normal_(empty((300, 300)), 2.0, 0.5, rng).data - 2, 0.5, None)
    check_distribution(init.uniform_(empty((300, 300)), 1.0, 3.0, rng).data - 2, 1 / math.sqrt(3), 1.0)


@pytest.mark.parametrize(
    ("fill", "value"), [(init.zeros_, 0), (init.ones_, 1), (lambda t: init.constant_(t, 0.25), 0.25)]
)
def test_constants(fill: Any, value: float) -> None:
    parameter = nn.Parameter(np.full((2, 3), np.nan))
    assert fill(parameter) is parameter
    assert (parameter.data == value).all()
    assert parameter.requires_grad
    assert parameter.version.count == 1


def test_batch_norm_starts_as_the_identity() -> None:
    bn = nn.BatchNorm2d(3)
    assert {n: v.tolist() for n, v in bn.state_dict().items()} == {
        "weight": [1, 1, 1],
        "bias": [0, 0, 0],
        "running_mean": [0, 0, 0],
        "running_var": [1, 1, 1],
        "num_batches_tracked": 0,
    }


@pytest.mark.parametrize("make", [lambda **g: nn.Conv2d(2, 3, 3, **g), lambda **g: nn.Linear(2, 3, **g)])
def test_seeds(make: Any) -> None:
    """The same generator or manual_seed, the same weights; and one layer's are not the next one's."""
    a, b = (make(generator=np.random.default_rng(5)) for _ in range(2))
    minires.manual_seed(5)
    c, d = make(), make()
    for name in ("weight", "bias"):
        np.testing.assert_array_equal(getattr(a, name).data, getattr(b, name).data)
        np.testing.assert_array_equal(getattr(a, name).data, getattr(c, name).data)
        assert not np.array_equal(getattr(c, name).data, getattr(d, name).data)


@pytest.mark.parametrize(
    ("settings", "shape", "error", "message"),
    [
        ({"mode": "fan"}, (2, 2), ArgumentError, "mode must be 'fan_in' or 'fan_out', not 'fan'"),
        ({"nonlinearity": "sine"}, (2, 2), ArgumentError, "unknown nonlinearity 'sine'; there are linear"),
        ({}, (3,), ShapeError, r"not for shape \(3,\)"),
        ({}, (3, 3, 2), ShapeError, "fan in and out are defined for"),
    ],
)
def test_refused(settings: dict[str, Any], shape: tuple[int, ...], error: type, message: str) -> None:
    for fill in (init.kaiming_normal_, init.kaiming_uniform_):
        with pytest.raises(error, match=message):
            fill(empty(shape), **settings)
