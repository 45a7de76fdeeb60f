"""Initial values: their distributions, and PyTorch's conventions for layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import minires
from minires import Tensor, nn
from minires.errors import ArgumentError, ShapeError
from minires.kernels import use
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


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("gain", [1.0, 5 / 3])
@pytest.mark.parametrize("uniform", [False, True])
def test_xavier(kind: str, gain: float, uniform: bool, rng: np.random.Generator) -> None:
    fill = init.xavier_uniform_ if uniform else init.xavier_normal_
    t = empty(SHAPES[kind])
    assert fill(t, gain, rng) is t
    std = gain * math.sqrt(2 / sum(FANS[kind]))
    check_distribution(t.data, std, math.sqrt(3) * std if uniform else None)


@pytest.mark.parametrize("fill", [init.xavier_uniform_, init.kaiming_uniform_])
def test_bounds_are_pytorchs(fill: Any, rng: np.random.Generator) -> None:
    """The largest of many draws, of weights alike in both layouts."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn.init, fill.__name__)(torch.empty(60, 40, 3, 5))
    ours = fill(empty((3, 5, 40, 60)), generator=rng)
    assert abs(ours.data).max() == pytest.approx(theirs.abs().max().item(), rel=1e-3)


def test_gains_are_pytorchs() -> None:
    names = ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
             "sigmoid", "tanh", "relu", "leaky_relu", "selu")  # fmt: skip
    for name in names:
        for param in (None, 0, 0.2) if name == "leaky_relu" else (None,):
            assert init.calculate_gain(name, param) == torch.nn.init.calculate_gain(name, param), name


@pytest.mark.parametrize("groups", [1, 2, 40])
def test_fans_of_grouped_convolutions(groups: int) -> None:
    theirs = torch.nn.Conv2d(40, 80, (3, 5), groups=groups).weight
    ours = empty((3, 5, 40 // groups, 80))
    assert init.fan_in_and_out(ours) == torch.nn.init._calculate_fan_in_and_fan_out(theirs)
    assert init.fan_in_and_out(ours)[0] == 3 * 5 * 40 // groups


BOUNDS = {  # mean, std, a, b; among them those where nearly all plain draws fall outside
    "usual": (0.0, 1.0, -2.0, 2.0),
    "wide": (0.0, 0.02, -2.0, 2.0),
    "half": (0.0, 1.0, 0.0, 100.0),
    "off": (1.0, 2.0, -0.5, 4.0),
    "narrow": (0.0, 1.0, -0.01, 0.02),
    "tail": (0.0, 1.0, 4.0, 6.0),
    "far": (0.0, 1.0, -1000.0, -20.0),
    "above": (5.0, 0.5, 1.0, 3.0),
}


def moments(mean: float, std: float, a: float, b: float) -> tuple[float, float]:
    """Mean and deviation of the truncated distribution, by the trapezoid rule where it has any mass."""
    peak = min(max(mean, a), b)
    reach = math.hypot((peak - mean) / std, 10) * std
    x = np.linspace(max(a, mean - reach), min(b, mean + reach), 2_000_001)
    density = np.exp((((peak - mean) / std) ** 2 - ((x - mean) / std) ** 2) / 2)
    density /= np.trapezoid(density, x)
    centre = np.trapezoid(density * x, x)
    return centre, math.sqrt(np.trapezoid(density * (x - centre) ** 2, x))


@pytest.mark.parametrize("case", BOUNDS)
def test_truncated_normal(case: str, rng: np.random.Generator) -> None:
    mean, std, a, b = BOUNDS[case]
    t = Tensor(np.full((300, 200), np.nan))
    assert init.trunc_normal_(t, mean, std, a, b, rng) is t
    assert a <= t.data.min()
    assert t.data.max() <= b
    centre, deviation = moments(mean, std, a, b)
    assert t.data.mean() == pytest.approx(centre, abs=5 * deviation / math.sqrt(t.numel()))
    # the variance of a square is at most 8 times the squared variance, which an exponential tail has
    assert t.data.std() == pytest.approx(deviation, rel=5 * math.sqrt(8 / (4 * t.numel())))


def test_truncated_normal_fills_its_bounds(rng: np.random.Generator) -> None:
    """No value is beyond, none was moved to a bound, and a float32 bound counts as float32 rounds it."""
    t = init.trunc_normal_(empty((300, 300)), 0.0, 1.0, -0.7, 0.3, rng)
    assert -0.7 < t.data.min() < -0.699
    assert 0.299 < t.data.max() < 0.3
    assert init.trunc_normal_(empty((2, 2)), a=1.0, b=1.0).tolist() == [[1, 1], [1, 1]]
    assert init.trunc_normal_(empty((0, 2))).shape == (0, 2)


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4), (3, 2, 2, 5), (1, 1, 3, 7), (0, 4), (4, 0), (3, 3, 0, 2)])
def test_orthogonal(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    t = Tensor(np.full(shape, np.nan))
    assert init.orthogonal_(t, 2.0, rng) is t
    rows = t.data if len(shape) == 2 else t.data.transpose(3, 0, 1, 2).reshape(shape[3], -1)
    product = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-14)


def test_orthogonal_matrices_are_uniform(rng: np.random.Generator) -> None:
    """Of a 1x1 matrix both signs come; LAPACK alone would always give one."""
    signs = [init.orthogonal_(empty((1, 1)), generator=rng).item() for _ in range(100)]
    assert 30 < signs.count(1.0) < 70
    assert signs.count(1.0) + signs.count(-1.0) == 100


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2)])
def test_eye(shape: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(init.eye_(empty(shape)).data, torch.nn.init.eye_(torch.empty(shape)).numpy())


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("shape", [(3, 3, 4, 8), (2, 5, 8, 4), (1, 1, 1, 4), (3, 4, 2, 8)])
def test_dirac(shape: tuple[int, ...], groups: int) -> None:
    kh, kw, i, o = shape
    theirs = torch.nn.init.dirac_(torch.empty(o, i, kh, kw), groups).numpy()
    np.testing.assert_array_equal(init.dirac_(empty(shape), groups).data, theirs.transpose(2, 3, 1, 0))


def test_dirac_keeps_images(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 5, 6, 3)).astype(np.float32)
    w = init.dirac_(empty((3, 3, 3, 3)))
    with use(conv2d="im2col"):  # a plain sum of products, of which all but one are 0: Winograd's products round
        np.testing.assert_array_equal(nn.functional.conv2d(x, w, padding=1).data, x)


@pytest.mark.parametrize(
    ("make", "make_theirs", "fan"),
    [
        (lambda g: nn.Conv2d(30, 70, (3, 5), generator=g), lambda: torch.nn.Conv2d(30, 70, (3, 5)), 450),
        (
            lambda g: nn.Conv2d(60, 90, (3, 5), groups=2, generator=g),
            lambda: torch.nn.Conv2d(60, 90, (3, 5), groups=2),
            450,
        ),
        (  # counts what one input feeds, per group
            lambda g: nn.ConvTranspose2d(40, 60, (3, 5), groups=2, generator=g),
            lambda: torch.nn.ConvTranspose2d(40, 60, (3, 5), groups=2),
            450,
        ),
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
        ({}, (3, 3, 2), ShapeError, r"defined for \(O, I\) and \(KH, KW, I, O\) weights, not for shape \(3, 3, 2\)$"),
    ],
)
def test_refused(settings: dict[str, Any], shape: tuple[int, ...], error: type, message: str) -> None:
    for fill in (init.kaiming_normal_, init.kaiming_uniform_):
        with pytest.raises(error, match=message):
            fill(empty(shape), **settings)


@pytest.mark.parametrize("fill", [init.kaiming_normal_, init.kaiming_uniform_, init.xavier_normal_,
                                  init.xavier_uniform_, init.orthogonal_, init.eye_, init.dirac_])  # fmt: skip
def test_vectors_are_refused(fill: Any) -> None:
    with pytest.raises(ShapeError, match=r"not for shape \(3,\); fill biases and the weights of norms with zeros_"):
        fill(empty((3,)))


@pytest.mark.parametrize(
    ("fill", "error", "message"),
    [
        (lambda: init.eye_(empty((1, 1, 2, 2))), ShapeError, r"identities are defined for \(O, I\) weights"),
        (lambda: init.dirac_(empty((2, 2))), ShapeError, r"identities are defined for \(KH, KW, I, O\) weights"),
        (lambda: init.dirac_(empty((1, 1, 2, 5)), 2), ArgumentError, "dirac_ of 5 outputs in 2 groups"),
        (lambda: init.trunc_normal_(empty((2,)), std=0), ArgumentError, "needs std above 0 and a <= b, not std=0"),
        (lambda: init.normal_(empty((2,)), std=-1), ArgumentError, "normal_ needs std of at least 0, not -1"),
        (lambda: init.normal_(empty((2,)), std=math.nan), ArgumentError, "normal_ needs std of at least 0, not nan"),
        (lambda: init.uniform_(empty((2,)), 1, 0), ArgumentError, "uniform_ needs finite a <= b, not a=1, b=0"),
        (
            lambda: init.uniform_(empty((2,)), 0, math.inf),
            ArgumentError,
            "uniform_ needs finite a <= b, not a=0, b=inf",
        ),
        (lambda: init.trunc_normal_(empty((2,)), a=1, b=-1), ArgumentError, "not std=1.0, a=1, b=-1"),
    ],
)
def test_other_bad_settings(fill: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        fill()
