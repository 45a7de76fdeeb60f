"""AdamW beside PyTorch's, setting by setting; its state, also in files; small numbers in float16; what it refuses."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires import Tensor, checkpoint, nn, optim
from minires.errors import ArgumentError, CheckpointError
from tests.oracle import torch

SHAPES = [(3, 4), (4,), (2, 2, 2, 3), ()]
NAMES = ("betas", "eps", "weight_decay", "amsgrad", "maximize")
SETTINGS = [
    dict(zip(NAMES, values, strict=True))
    for values in itertools.product(
        ((0.9, 0.999), (0.0, 0.5)), (1e-8, 0.1), (0.01, 0.0, 0.5), (False, True), (False, True)
    )
]
TOLERANCE = {"float64": 1e-13, "float32": 1e-6}


def groups_of(params: list[Any]) -> Any:
    """The second half has settings of its own."""
    return [{"params": params[:2]}, {"params": params[2:], "lr": 0.02, "weight_decay": 0.1, "betas": (0.8, 0.9)}]


def set_gradients(ours: list[nn.Parameter], theirs: list[Any], step: int) -> None:
    """Alike here and there, smaller from step to step; every third step leaves one parameter out."""
    rng = np.random.default_rng(step)
    for i, p in enumerate(ours):
        gradient = np.asarray(rng.standard_normal(p.shape) / (step + 1), p.dtype)
        p.grad = None if i == step % 3 else Tensor(gradient)
        if theirs:
            theirs[i].grad = None if i == step % 3 else torch.from_numpy(gradient.copy())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: ",".join(map(str, s.values())))
def test_ten_steps_equal_pytorchs(
    settings: dict[str, Any], grouped: bool, dtype: str, rng: np.random.Generator
) -> None:
    values = [np.asarray(rng.standard_normal(shape), dtype) for shape in SHAPES]
    ours = [nn.Parameter(v.copy()) for v in values]
    theirs = [torch.nn.Parameter(torch.from_numpy(v.copy())) for v in values]
    our_adamw = optim.AdamW(groups_of(ours) if grouped else ours, lr=0.1, **settings)
    their_adamw = torch.optim.AdamW(groups_of(theirs) if grouped else theirs, lr=0.1, **settings)
    for step in range(10):
        set_gradients(ours, theirs, step)
        our_adamw.step()
        their_adamw.step()
    for p, q, value in zip(ours, theirs, values, strict=True):
        expected = q.detach().numpy()
        assert p.dtype == np.dtype(dtype)
        assert abs(p.data - expected).max() <= TOLERANCE[dtype] * abs(expected).max()
        assert not np.array_equal(p.data, value)
        kept = their_adamw.state[q]
        assert set(our_adamw.state[p]) == set(kept)
        for name, value in our_adamw.state[p].items():
            np.testing.assert_allclose(value, kept[name].numpy(), rtol=10 * TOLERANCE[dtype], atol=0)


def test_defaults_are_pytorchs() -> None:
    ours, theirs = optim.AdamW(nn.Parameter(np.ones(2))), torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])
    assert {name: theirs.defaults[name] for name in ours.defaults} == ours.defaults


def test_a_step_by_hand() -> None:
    """w = 1 decays to 0.95; both moments over their corrections are 1, whatever the gradient: w = 0.95 - 0.1."""
    for gradient in (1e-3, 5.0):
        w = nn.Parameter(np.ones(1))
        w.grad = Tensor(np.full(1, gradient))
        optim.AdamW([w], lr=0.1, eps=0.0, weight_decay=0.5).step()
        assert w.item() == pytest.approx(0.85, rel=1e-15)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_run_from_a_file_goes_on_bit_for_bit(amsgrad: bool, dtype: type, tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self, values: list[np.ndarray]) -> None:
            super().__init__()
            for i, value in enumerate(values):
                setattr(self, f"p{i}", nn.Parameter(value.copy()))

    def run(net: Net, adamw: optim.AdamW, schedule: Any, steps: range) -> list[bytes]:
        for step in steps:
            set_gradients(list(net.parameters()), [], step)
            adamw.step()
            schedule.step()
        return [p.data.tobytes() for p in net.parameters()]

    straight = Net([np.ones(shape, dtype) for shape in SHAPES])
    adamw = optim.AdamW(groups_of(list(straight.parameters())), lr=0.1, amsgrad=amsgrad)
    schedule = optim.lr_scheduler.OneCycleLR(adamw, 0.1, 10)
    run(straight, adamw, schedule, range(5))
    checkpoint.save(tmp_path / "half", straight, adamw, schedule)
    want = run(straight, adamw, schedule, range(5, 10))

    saved = checkpoint.load(tmp_path / "half")
    resumed = Net([np.zeros(shape, dtype) for shape in SHAPES])
    other = optim.AdamW(groups_of(list(resumed.parameters())), lr=9.0)
    resumed.load_state_dict(saved.model)
    schedule = optim.lr_scheduler.OneCycleLR(other, 5.0, 20)
    other.load_state_dict(saved.optimizer)
    schedule.load_state_dict(saved.scheduler)
    assert run(resumed, other, schedule, range(5, 10)) == want
    assert other.param_groups == [{**g, "params": o["params"]} for g, o in zip(
        adamw.param_groups, other.param_groups, strict=True)]  # fmt: skip
    for p, q in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert adamw.state[p]["step"] == other.state[q]["step"]
        assert isinstance(other.state[q]["step"], int)
        assert all(other.state[q][name].dtype == max(dtype, np.float32, key=lambda t: np.dtype(t).itemsize)
                   for name in ("exp_avg", "exp_avg_sq"))  # fmt: skip


def test_pytorchs_state_is_taken_over(rng: np.random.Generator) -> None:
    """Whose steps are tensors without dimensions, of floats."""
    values = [rng.standard_normal(shape) for shape in SHAPES]
    ours = [nn.Parameter(np.asarray(v)) for v in values]
    theirs = [torch.nn.Parameter(torch.from_numpy(np.array(v))) for v in values]
    their_adamw, our_adamw = torch.optim.AdamW(theirs, lr=0.1), optim.AdamW(ours, lr=9.0)
    for step in range(10):
        set_gradients(ours, theirs, step)
        their_adamw.step()
        if step == 4:
            our_adamw.load_state_dict(their_adamw.state_dict())
            for p, q in zip(ours, theirs, strict=True):
                p.data[...] = q.detach().numpy()
                assert (
                    type(our_adamw.state[p]["step"]) is float
                )  # of one number too: 1 - 0.999 in float32 is off by 5e-5
        elif step > 4:
            our_adamw.step()
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("gradient", [1e-7, 1e-4, 1.0, 6e4])
def test_float16_moments_neither_vanish_nor_overflow(gradient: float) -> None:
    """float16 has no number between 0 and 6e-8, nor above 65,504: the second moment would be 0, or infinite."""
    w, wide = (nn.Parameter(np.zeros(3, dtype)) for dtype in (np.float16, np.float64))
    adamw, exact = (optim.AdamW([p], lr=0.01, eps=1e-12, weight_decay=0.0) for p in (w, wide))
    for _ in range(5):
        w.grad = Tensor(np.full(3, gradient, np.float16))
        wide.grad = Tensor(w.grad.data.astype(np.float64))
        adamw.step()
        exact.step()
    assert w.dtype == np.float16
    for name in ("exp_avg", "exp_avg_sq"):
        assert adamw.state[w][name].dtype == np.float32
        np.testing.assert_allclose(adamw.state[w][name], exact.state[wide][name], rtol=1e-6)
    np.testing.assert_allclose(w.data, wide.data, rtol=2e-3)  # five roundings to 11 bits


@pytest.mark.parametrize("number", [float, np.float64, np.float32])
def test_settings_of_any_number_type_keep_float32(number: type) -> None:
    w = nn.Parameter(np.ones(3, np.float32))
    adamw = optim.AdamW([w], lr=number(0.1), betas=[number(0.9), number(0.5)], eps=number(1e-8), weight_decay=number(1))
    for _ in range(2):
        w.grad = Tensor(np.ones(3, np.float32))
        adamw.step()
    assert {w.dtype, *(adamw.state[w][name].dtype for name in ("exp_avg", "exp_avg_sq"))} == {np.dtype(np.float32)}
    assert {type(beta) for beta in adamw.param_groups[0]["betas"]} == {float}


def test_amsgrad_may_be_switched_on_and_off() -> None:
    w = nn.Parameter(np.ones(3))
    adamw = optim.AdamW([w])
    for amsgrad in (False, True, False):
        adamw.param_groups[0]["amsgrad"] = amsgrad
        w.grad = Tensor(np.ones(3))
        adamw.step()
    assert adamw.state[w]["step"] == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -0.1}, "AdamW: lr must be a number of at least 0, not -0.1"),
        ({"eps": -1}, "eps must be a number of at least 0"),
        ({"weight_decay": float("nan")}, "weight_decay must be a number of at least 0, not nan"),
        ({"betas": (0.9, 1.0)}, r"betas must be two numbers .* not \(0.9, 1.0\)"),
        ({"betas": (-0.1, 0.9)}, "betas must be two"),
        ({"betas": ("0.9", 0.9)}, "betas must be two"),
        ({"betas": (0.9,)}, "betas must be two"),
        ({"betas": 0.9}, "betas must be two"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    p = nn.Parameter(np.ones(2))
    with pytest.raises(ArgumentError, match=message):
        optim.AdamW([p], **settings)
    with pytest.raises(ArgumentError, match=message):
        optim.AdamW([{"params": [p], **settings}])


def test_the_state_of_sgd_is_refused() -> None:
    p = nn.Parameter(np.ones(2))
    state = optim.SGD([p], momentum=0.9).state_dict()
    adamw = optim.AdamW([p])
    with pytest.raises(CheckpointError, match="AdamW: the state dict of another optimizer: no amsgrad, betas, eps"):
        adamw.load_state_dict(state)
    assert "momentum" not in adamw.param_groups[0]
