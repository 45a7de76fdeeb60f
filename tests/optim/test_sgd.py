"""SGD beside PyTorch's, setting by setting; its state; what it refuses."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest

from minires import Tensor, enable_grad, nn, no_grad, optim
from minires.errors import ArgumentError, CheckpointError, DTypeError
from tests.oracle import torch

SHAPES = [(3, 4), (4,), (2, 2, 2, 3), ()]
GRID = [
    dict(zip(("momentum", "dampening", "nesterov", "weight_decay", "maximize"), values, strict=True))
    for values in itertools.product((0.0, 0.9), (0.0, 0.3), (False, True), (0.0, 0.01), (False, True))
]
SETTINGS = [s for s in GRID if not s["nesterov"] or (s["momentum"] and not s["dampening"])]
TOLERANCE = {"float64": 1e-13, "float32": 1e-6}


def groups_of(params: list[Any], grouped: bool) -> Any:
    """All alike, or the second half with settings of its own."""
    return [{"params": params[:2]}, {"params": params[2:], "lr": 0.02, "weight_decay": 0.1}] if grouped else params


def label(settings: dict[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in settings.items() if value) or "plain"


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("settings", SETTINGS, ids=label)
def test_ten_steps_equal_pytorchs(
    settings: dict[str, Any], grouped: bool, dtype: str, rng: np.random.Generator
) -> None:
    values = [np.asarray(rng.standard_normal(shape), dtype) for shape in SHAPES]
    ours = [nn.Parameter(v.copy()) for v in values]
    theirs = [torch.nn.Parameter(torch.from_numpy(v.copy())) for v in values]
    our_sgd = optim.SGD(groups_of(ours, grouped), lr=0.1, **settings)
    their_sgd = torch.optim.SGD(groups_of(theirs, grouped), lr=0.1, **settings)
    for _ in range(10):
        for p, q in zip(ours, theirs, strict=True):
            gradient = np.asarray(rng.standard_normal(p.shape), dtype)
            p.grad, q.grad = Tensor(gradient), torch.from_numpy(gradient.copy())
        our_sgd.step()
        their_sgd.step()
    for p, q, value in zip(ours, theirs, values, strict=True):
        expected = q.detach().numpy()
        assert p.dtype == np.dtype(dtype)
        assert abs(p.data - expected).max() <= TOLERANCE[dtype] * abs(expected).max()
        assert not np.array_equal(p.data, value)


def test_two_steps_by_hand() -> None:
    """w = 1, g = 1: v = 1, w = 0.9; then v = 1.5, w = 0.75."""
    w = nn.Parameter(np.ones(1))
    sgd = optim.SGD([w], lr=0.1, momentum=0.5)
    for expected in (0.9, 0.75):
        w.grad = Tensor(np.ones(1))
        sgd.step()
        assert w.item() == pytest.approx(expected, rel=1e-15)


def test_gradients_are_left_alone(rng: np.random.Generator) -> None:
    gradient = rng.standard_normal(3)
    w = nn.Parameter(rng.standard_normal(3))
    w.grad = Tensor(gradient.copy())
    sgd = optim.SGD([w], lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)
    for _ in range(3):
        sgd.step()
    np.testing.assert_array_equal(w.grad.data, gradient)


@pytest.mark.parametrize("make", [optim.SGD, optim.AdamW])
@pytest.mark.parametrize("recording", [enable_grad, no_grad])
def test_step_calls_its_closure(make: Any, recording: Any) -> None:
    """With recording on, also where it is off; and returns the loss."""
    w = nn.Parameter(np.ones(2))
    optimizer = make([w], lr=0.1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return loss

    with recording():
        losses = [optimizer.step(closure).item() for _ in range(3)]
        assert optimizer.step() is None
    assert losses[0] == 2
    assert losses[2] < losses[1] < losses[0]


def test_no_gradient_no_step() -> None:
    trained, frozen = nn.Parameter(np.ones(2)), nn.Parameter(np.ones(2))
    sgd = optim.SGD([trained, frozen], lr=0.1, momentum=0.9, weight_decay=0.1)
    trained.grad = Tensor(np.ones(2))
    sgd.step()
    assert frozen.tolist() == [1, 1]
    assert list(sgd.state) == [trained]
    assert (trained.version.count, frozen.version.count) == (1, 0)


@pytest.mark.parametrize("number", [float, np.float64, np.float32])
def test_settings_of_any_number_type_keep_float32(number: type) -> None:
    w = nn.Parameter(np.ones(3, np.float32))
    sgd = optim.SGD([w], lr=number(0.1), momentum=number(0.9), weight_decay=number(0.1), dampening=number(0.5))
    for _ in range(2):
        w.grad = Tensor(np.ones(3, np.float32))
        sgd.step()
    assert w.dtype == sgd.state[w]["momentum_buffer"].dtype == np.float32


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad(set_to_none: bool) -> None:
    with_gradient, without = nn.Parameter(np.ones(2)), nn.Parameter(np.ones(2))
    with_gradient.grad = Tensor(np.ones(2))
    optim.SGD([with_gradient, without], lr=0.1).zero_grad(set_to_none)
    assert without.grad is None
    assert with_gradient.grad is None if set_to_none else with_gradient.grad.tolist() == [0, 0]


def run(sgd: optim.SGD, params: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        rng = np.random.default_rng(step)
        for p in params:
            p.grad = Tensor(rng.standard_normal(p.shape).astype(p.dtype))
        sgd.step()


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "weight_decay": 1e-4, "nesterov": True}], ids=label)
@pytest.mark.parametrize("wrap", [lambda v: v, Tensor], ids=["arrays", "tensors"])
def test_a_saved_run_goes_on_bit_for_bit(settings: dict[str, Any], wrap: Any) -> None:
    straight = [nn.Parameter(np.ones(shape, np.float32)) for shape in SHAPES]
    sgd = optim.SGD(groups_of(straight, True), lr=0.1, **settings)
    run(sgd, straight, range(5))
    saved = copy.deepcopy(sgd.state_dict())
    for values in saved["state"].values():
        values.update({name: wrap(v) for name, v in values.items() if v is not None})
    resumed = [nn.Parameter(p.data.copy()) for p in straight]
    run(sgd, straight, range(5, 10))

    other = optim.SGD(groups_of(resumed, True), lr=99.0)
    other.load_state_dict(saved)
    run(other, resumed, range(5, 10))
    for p, q in zip(straight, resumed, strict=True):
        np.testing.assert_array_equal(p.data, q.data)
    assert [g["lr"] for g in other.param_groups] == [0.1, 0.02]


def test_state_dict_has_pytorchs_form() -> None:
    params = [nn.Parameter(np.ones(2)), nn.Parameter(np.ones(3))]
    sgd = optim.SGD(params, lr=0.1, momentum=0.9)
    run(sgd, params, range(1))
    state = sgd.state_dict()
    assert list(state) == ["state", "param_groups"]
    assert {i: list(values) for i, values in state["state"].items()} == {0: ["momentum_buffer"], 1: ["momentum_buffer"]}
    assert state["param_groups"][0]["params"] == [0, 1]
    assert state["param_groups"][0]["lr"] == 0.1


@pytest.mark.parametrize(
    ("shapes", "grouped", "message"),
    [
        ([(2,), (3,), (4,)], False, r"groups of \[2\] in the state dict, but of \[3\] here"),
        ([(2,), (3,)], True, r"groups of \[2\] in the state dict, but of \[2, 0\] here"),
        ([(2,), (4,)], False, r"momentum_buffer of parameter 1 is \(3,\), the parameter \(4,\)"),
    ],
)
def test_a_state_of_other_parameters_is_refused(shapes: list[Any], grouped: bool, message: str) -> None:
    """And nothing is changed."""
    params = [nn.Parameter(np.ones(2)), nn.Parameter(np.ones(3))]
    sgd = optim.SGD(params, lr=0.5, momentum=0.9)
    run(sgd, params, range(1))
    other = optim.SGD(groups_of([nn.Parameter(np.ones(s)) for s in shapes], grouped), lr=0.1)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(CheckpointError, match=message):
        other.load_state_dict(sgd.state_dict())
    assert other.state_dict() == before


def parameter() -> nn.Parameter:
    return nn.Parameter(np.ones(2))


SAME = parameter()


@pytest.mark.parametrize(
    ("params", "settings", "error", "message"),
    [
        ([parameter()], {"lr": -0.1}, ArgumentError, "lr must be a number of at least 0, not -0.1"),
        ([parameter()], {"lr": float("nan")}, ArgumentError, "lr must be a number of at least 0, not nan"),
        ([parameter()], {"lr": "0.1"}, ArgumentError, "lr must be a number of at least 0, not '0.1'"),
        ([parameter()], {"lr": None}, ArgumentError, "lr must be a number of at least 0, not None"),
        ([parameter()], {"lr": Tensor(0.1)}, ArgumentError, r"lr must be a number of at least 0, not Tensor\(0.1"),
        ([parameter()], {"momentum": -1}, ArgumentError, "momentum must be a number of at least 0"),
        ([parameter()], {"weight_decay": -1}, ArgumentError, "weight_decay must be a number of at least 0"),
        ([parameter()], {"nesterov": True}, ArgumentError, "Nesterov momentum requires"),
        ([parameter()], {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, ArgumentError, "zero dampening"),
        ([], {}, ArgumentError, "no parameters"),
        ([np.ones(2)], {}, DTypeError, "must be Tensors, not ndarray"),
        ({parameter()}, {}, DTypeError, "takes a list of parameters, .* no set"),
        (None, {}, DTypeError, "takes a list of parameters, .* no NoneType"),
        ([{"params": {parameter()}}], {}, DTypeError, "takes a list of parameters, .* no set"),
        ([{"lr": 0.1}], {}, ArgumentError, "a parameter group must be a dict that holds 'params'"),
        ([{"params": []}, parameter()], {}, ArgumentError, "a parameter group must be a dict that holds 'params'"),
        ([parameter() * 2], {}, ArgumentError, "only leaves"),
        ([SAME, SAME], {}, ArgumentError, r"shape \(2,\) was given twice"),
        ([{"params": [SAME]}, {"params": [SAME]}], {}, ArgumentError, "given twice"),
        ([{"params": [parameter()], "rate": 1}], {}, ArgumentError, "unknown setting rate; there are lr, momentum"),
    ],
)
def test_refused(params: Any, settings: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        optim.SGD(params, **settings)


def test_one_parameter_or_a_generator_will_do() -> None:
    assert optim.SGD(parameter()).param_groups[0]["params"][0].shape == (2,)
    assert len(optim.SGD(parameter() for _ in range(3)).param_groups[0]["params"]) == 3


def test_settings_are_python_numbers() -> None:
    """JSON, and so a checkpoint, can hold them."""
    settings: dict[str, Any] = {"lr": np.float32(0.1), "weight_decay": np.float64(1e-4), "momentum": np.array(0.5)}
    sgd = optim.SGD([Tensor([1.0], requires_grad=True)], **settings)
    sgd.param_groups[0]["dampening"] = np.float32(0.25)
    group = sgd.state_dict()["param_groups"][0]
    assert {type(group[name]) for name in (*settings, "dampening")} == {float}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "NoneType"),
        ({"state": {3: {}}, "param_groups": [{"params": [0]}]}, "state of parameter 3, but there are 1"),
        ({"state": {"w": {}}, "param_groups": [{"params": [0]}]}, "state of parameter w, but there are 1"),
        ({"state": None, "param_groups": [{"params": [0]}]}, "not this dict"),
        ({"state": {}, "param_groups": None}, "not this dict"),
        ({"state": {}, "param_groups": [{"lr": 0.1}]}, "not this dict"),
    ],
)
def test_what_is_no_state_dict_is_refused(state: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        optim.SGD([Tensor([1.0], requires_grad=True)]).load_state_dict(state)


def test_float16_keeps_its_momentum_in_float32() -> None:
    """Ten gradients of 6e-8, the smallest in float16, of which a rounded momentum would keep whole multiples."""
    p = nn.Parameter(np.zeros(2, np.float16))
    sgd = optim.SGD([p], lr=1e4, momentum=0.5)
    for _ in range(10):
        p.grad = Tensor(np.full(2, 6e-8, np.float16))
        sgd.step()
    velocity = sgd.state[p]["momentum_buffer"]
    assert velocity.dtype == np.float32
    np.testing.assert_allclose(velocity, float(np.float16(6e-8)) * (2 - 0.5**9), rtol=1e-6)
    assert p.dtype == np.float16


def test_an_overflowing_step_is_no_warning() -> None:
    p = Tensor(np.array([3e38], np.float32), requires_grad=True)
    p.grad = Tensor(np.array([-3e38], np.float32))
    optim.SGD([p], lr=10.0).step()
    assert p.tolist() == [np.inf]


def test_forgotten_parentheses_are_named() -> None:
    layer = nn.Linear(1, 1)
    for wrong in (layer, layer.parameters):
        with pytest.raises(DTypeError, match=r"pass model\.parameters\(\)"):
            optim.SGD(wrong)


def test_a_subclass_has_its_own_rule() -> None:
    """For one parameter; it may call SGD's."""

    class Slow(optim.SGD):
        def update(self, p, state, settings):
            before = p.data.copy()
            super().update(p, state, settings)
            p.data[...] = (p.data + before) / 2

    results = []
    for make in (optim.SGD, Slow):
        p = Tensor(np.ones(3), requires_grad=True)
        optimizer = make([p], lr=0.5, momentum=0.9)
        for _ in range(2):
            p.grad = Tensor(np.full(3, 0.25))
            optimizer.step()
        results.append(p.detach().numpy())
    assert results[0][0] == 1 - 0.125 - 0.5 * 0.25 * 1.9
    assert results[1][0] == (1 - 0.125 / 2) - 0.5 * 0.25 * 1.9 / 2
