"""Dropout: its statistics, its mask, what it draws, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minires
from minires import Tensor, nn, ops
from minires.errors import ArgumentError, DTypeError
from tests import reference
from tests.helpers import LAYOUTS


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_share_p_is_dropped(p: float) -> None:
    """Over 1e6 draws: the share, its mean over rows and columns, and that neighbours know nothing of each other."""
    n = 1000
    y = ops.dropout(np.ones((n, n)), p, generator=seeded()).data
    assert set(np.unique(y)) == {0.0, 1 / (1 - p)}
    dropped, error = y == 0, np.sqrt(p * (1 - p))  # the standard error of the mean of one
    assert abs(dropped.mean() - p) < 4 * error / n
    for axis in (0, 1):
        z = (dropped.mean(axis) - p) / (error / np.sqrt(n))
        assert np.abs(z).max() < 5
        assert abs(np.mean(z**2) - 1) < 0.3
    both = dropped.ravel()[1:] & dropped.ravel()[:-1]
    assert abs(both.mean() - p * p) < 5 * p * np.sqrt(1 - p * p) * np.sqrt(3) / n
    assert abs(y.mean() - 1) < 4 * error / (1 - p) / n


def test_the_mask_is_philox_of_key_and_number() -> None:
    for shape in ((), (1,), (7,), (3, 5), (2, 0), (4, 2, 3)):
        y = ops.dropout(np.ones(shape), 0.3, generator=seeded())
        low, high = seeded().integers(2**32, size=2).tolist()
        np.testing.assert_array_equal(y.data != 0, reference.dropout_mask(shape, (low, high), 0.3))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_mask_does_not_depend_on_layout_or_dtype(layout: str) -> None:
    for dtype in ("float16", "float32", "float64"):
        y = ops.dropout(LAYOUTS[layout](np.ones((5, 4, 3), dtype)), 0.5, generator=seeded())
        assert y.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(y.data, ops.dropout(np.ones((5, 4, 3)), 0.5, generator=seeded()).data)


def test_same_seed_same_masks_and_each_call_another() -> None:
    x = np.ones((10, 10))
    first, second = (ops.dropout(x, generator=g).data for g in [seeded()] * 2)
    assert (first != second).any()
    again = seeded()
    np.testing.assert_array_equal(ops.dropout(x, generator=again).data, first)
    np.testing.assert_array_equal(ops.dropout(x, generator=again).data, second)
    minires.manual_seed(0)
    np.testing.assert_array_equal(ops.dropout(x).data, first)


def test_two_layers_differ() -> None:
    x, shared = np.ones((10, 10)), seeded()
    for generator in (None, shared):
        one, other = (nn.Dropout(generator=generator)(x).data for _ in range(2))
        assert (one != other).any()


def test_backward_uses_the_same_mask() -> None:
    x = Tensor(np.ones((20, 20)), requires_grad=True)
    first = ops.dropout(x, 0.3)
    ops.dropout(x, 0.3)  # another call in between draws another mask
    first.backward(np.ones((20, 20)))
    np.testing.assert_array_equal(x.grad.data, first.data)


@pytest.mark.parametrize("call", [
    lambda x, g: ops.dropout(x, 0.5, False, generator=g),
    lambda x, g: ops.dropout(x, 0, generator=g),
    lambda x, g: nn.Dropout(0.5, generator=g).eval()(x),
])  # fmt: skip
def test_evaluation_and_p_0_change_record_and_draw_nothing(call: Any) -> None:
    x, generator = Tensor([1.0, 2.0], requires_grad=True), seeded()
    assert call(x, generator) is x
    assert generator.bit_generator.state == seeded().bit_generator.state
    assert call(Tensor([1, 2]), generator).tolist() == [1, 2]


def test_p_1_drops_everything() -> None:
    x = Tensor([1.0, np.inf, np.nan], requires_grad=True)
    y = ops.dropout(x, 1)
    y.backward([1.0, 1.0, 1.0])
    assert y.tolist() == x.grad.tolist() == [0, 0, 0]


def test_what_is_dropped_is_zero_whatever_it_was() -> None:
    y = ops.dropout(np.full(1000, np.inf), 0.5, generator=seeded()).data
    assert set(np.unique(y)) == {0, np.inf}


def test_nothing_is_recorded_under_no_grad() -> None:
    with minires.no_grad():
        y = nn.Dropout()(Tensor(np.ones(100), requires_grad=True))
    assert (y.node, (y.data == 0).any()) == (None, True)


def test_the_graph_names_probability_and_key() -> None:
    y = ops.dropout(Tensor([1.0], requires_grad=True), np.float32(0.5), generator=seeded())
    low, high = seeded().integers(2**32, size=2).tolist()
    assert repr(y.node) == f"Dropout(p=0.5, key=({low}, {high}))"
    assert repr(nn.Dropout(0.25)) == "Dropout(p=0.25)"


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan"), "half", None, True])
def test_bad_probabilities_are_refused(p: Any) -> None:
    for training in (True, False):
        with pytest.raises(ArgumentError, match=r"dropout: p, the share that is dropped, must be a number in \[0, 1\]"):
            ops.dropout([1.0], p, training)
    with pytest.raises(ArgumentError, match="Dropout: p"):
        nn.Dropout(p)


def test_integers_are_refused_in_training() -> None:
    with pytest.raises(DTypeError, match="dropout: input must be of a floating type, but input is int64"):
        ops.dropout([1, 2])
