"""Clipping beside PyTorch's: the norm, the gradients, numbers too large for their type, NaN and infinity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minires import Tensor, nn
from minires.errors import ArgumentError, GraphError
from minires.optim import clip_grad_norm_, clip_grad_value_
from tests.oracle import torch

SHAPES = [(3, 4), (4,), (2, 2, 2, 3), (), (0,)]
TOLERANCE = {np.float64: 1e-13, np.float32: 1e-6}
NAN, INF = math.nan, math.inf


def parameters(gradients: list[np.ndarray | None]) -> tuple[list[nn.Parameter], list[Any]]:
    """Here and in PyTorch."""
    ours, theirs = [], []
    for g in gradients:
        value = np.zeros(2) if g is None else np.zeros_like(g)
        ours.append(nn.Parameter(value))
        theirs.append(torch.nn.Parameter(torch.from_numpy(value.copy())))
        if g is not None:
            ours[-1].grad, theirs[-1].grad = Tensor(g.copy()), torch.from_numpy(g.copy())
    return ours, theirs


def drawn(rng: np.random.Generator, dtype: type) -> list[np.ndarray | None]:
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in SHAPES] + [None]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("norm_type", [1.0, 2, 3.5, INF])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e3])
def test_norm_equals_pytorchs(max_norm: float, norm_type: float, dtype: type, rng: np.random.Generator) -> None:
    gradients = drawn(rng, dtype)
    ours, theirs = parameters(gradients)
    norm = clip_grad_norm_(ours, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_([p for p in theirs if p.numel()], max_norm, norm_type)
    assert (norm.dtype, norm.shape) == (np.dtype(dtype), ())
    assert norm.item() == pytest.approx(expected.item(), rel=TOLERANCE[dtype])
    for p, q, g in zip(ours, theirs, gradients, strict=True):
        if g is None:
            assert p.grad is None
            continue
        assert (p.grad.dtype, p.grad.version.count) == (np.dtype(dtype), 1)
        np.testing.assert_allclose(p.grad.data, q.grad.numpy(), rtol=TOLERANCE[dtype], atol=0)
        if max_norm > norm.item():
            np.testing.assert_array_equal(p.grad.data, g)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("clip_value", [0, 0.5, 1e6])
def test_value_equals_pytorchs(clip_value: float, dtype: type, rng: np.random.Generator) -> None:
    gradients = [*drawn(rng, dtype), np.array([NAN, INF, -INF, -0.0], dtype)]
    ours, _ = parameters(gradients)
    _, theirs = parameters([None if g is None else g.astype(np.float64) for g in gradients])
    clip_grad_value_(iter(ours), clip_value)  # PyTorch itself refuses 1e6 in float16
    torch.nn.utils.clip_grad_value_(theirs, clip_value)
    for p, q in zip(ours, theirs, strict=True):
        if p.grad is not None:
            assert (p.grad.dtype, p.grad.version.count) == (np.dtype(dtype), 1)
            with np.errstate(over="ignore"):  # 1e6 is infinite in float16
                np.testing.assert_array_equal(p.grad.data, q.grad.numpy().astype(dtype))


@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=8),
    st.floats(0.01, 100),
    st.sampled_from([1.0, 2.0, INF]),
)
def test_a_clipped_norm_is_within_the_bound(entries: list[float], max_norm: float, norm_type: float) -> None:
    """And the direction stays."""
    p = nn.Parameter(np.zeros(len(entries)))
    p.grad = Tensor(np.array(entries))
    before = clip_grad_norm_(p, max_norm, norm_type).item()
    assert before == pytest.approx(np.linalg.norm(entries, norm_type), rel=1e-12)
    after = np.linalg.norm(p.grad.data, norm_type)
    assert after <= max_norm * (1 + 1e-12)
    assert after == pytest.approx(min(before, max_norm), rel=1e-6 / max(before, 1e-6) + 1e-12)
    np.testing.assert_allclose(p.grad.data * before, np.array(entries) * after, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("dtype", "largest"), [(np.float16, 60000.0), (np.float32, 3e38)])
def test_a_norm_beyond_the_type_is_clipped_all_the_same(dtype: type, largest: float) -> None:
    """The squares of both overflow in float32, and the norm too in float32: only what is returned is then infinite."""
    p = nn.Parameter(np.zeros(400, dtype))
    p.grad = Tensor(np.full(400, largest, dtype))
    norm = clip_grad_norm_(p, 1.0)
    assert norm.dtype == np.float32
    assert norm.item() == (INF if dtype == np.float32 else pytest.approx(20 * float(dtype(largest)), rel=1e-6))
    np.testing.assert_allclose(p.grad.data.astype(np.float64), 0.05, rtol=5e-4 if dtype == np.float16 else 1e-6)


def test_small_numbers_do_not_vanish() -> None:
    """Squares of 1e-7 are 0 in float16, and those of 1e-30 in float32."""
    for dtype, small in ((np.float16, 1e-7), (np.float32, 1e-30)):
        p = nn.Parameter(np.zeros(4, dtype))
        p.grad = Tensor(np.full(4, small, dtype))
        assert clip_grad_norm_(p, 1.0).item() == pytest.approx(2 * float(dtype(small)), rel=1e-6)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_what_is_not_finite_spreads_as_in_pytorch(bad: float) -> None:
    gradients = [np.array([1.0, bad, 2.0]), np.array([3.0])]
    ours, theirs = parameters(gradients)
    norm, expected = clip_grad_norm_(ours, 1.0), torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    np.testing.assert_array_equal(norm.data, expected.numpy())
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(p.grad.data, q.grad.numpy())


@pytest.mark.parametrize("bad", [NAN, INF])
def test_what_is_not_finite_can_raise(bad: float) -> None:
    """Before anything is written."""
    ours, _ = parameters([np.array([1.0, bad]), np.array([3.0])])
    with pytest.raises(GraphError, match=rf"clip_grad_norm_: the norm of order 2.0 .* is {bad}.*detect_anomaly"):
        clip_grad_norm_(ours, 1.0, error_if_nonfinite=True)
    assert [p.grad.version.count for p in ours] == [0, 0]
    assert ours[1].grad.tolist() == [3]


def test_nothing_to_clip() -> None:
    for none in ([], [nn.Parameter(np.ones(2))], nn.Parameter(np.ones(2))):
        assert clip_grad_norm_(none, 1.0, error_if_nonfinite=True).item() == 0
        clip_grad_value_(none, 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: clip_grad_norm_(p, -1.0), "clip_grad_norm_: max_norm must be at least 0, not -1.0"),
        (lambda p: clip_grad_norm_(p, NAN), "max_norm must be at least 0, not nan"),
        (lambda p: clip_grad_norm_(p, 1.0, 0), "norm_type must be above 0, or infinite, not 0.0"),
        (lambda p: clip_grad_value_(p, -1), "clip_grad_value_: clip_value must be at least 0, not -1.0"),
    ],
)
def test_refused(call: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call(nn.Parameter(np.ones(2)))
