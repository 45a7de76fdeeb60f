"""Pooling: ties, NaN, padding, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor, ops
from minires.errors import ArgumentError, DTypeError, MiniresError, ShapeError
from tests.oracle import nchw, nhwc, torch

NAN, INF = float("nan"), float("inf")


def max_pool_gradient(x: np.ndarray, *window: Any, op: Any = ops.max_pool2d) -> tuple[np.ndarray, np.ndarray]:
    tensor = Tensor(x, requires_grad=True)
    y = op(tensor, *window)
    y.backward(np.ones(y.shape))
    return y.data, tensor.grad.data


# Values in which a maximum is not plain: equals, NaN, minus infinity, and every value below the padding's zero.
IMAGES = {
    "ties": np.tile([1.0, 2.0, 2.0, 1.0, 2.0, 2.0], 6),
    "constant": np.ones(36),
    "nan": np.where(np.arange(36) % 7 == 3, NAN, np.arange(36.0)),
    "lowest": np.full(36, -INF),
    "infinite": np.where(np.arange(36) % 5 == 2, INF, -np.arange(36.0)),
    "negative": -1 - np.arange(36.0),
}


@pytest.mark.parametrize("window", [(2,), (3, 2, 1), (3, 1, 1), (3, 1, 1, 2), (2, 3, 1, 3, True)], ids=str)
@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_max_pool_picks_pytorchs_winners(image: np.ndarray, window: tuple[int, ...]) -> None:
    x = image.reshape(1, 6, 6, 1)
    y, gx = max_pool_gradient(x, *window)
    t = nchw(x).requires_grad_()
    want = torch.nn.functional.max_pool2d(t, *window)
    want.backward(torch.ones_like(want))
    np.testing.assert_array_equal(y, nhwc(want))
    np.testing.assert_array_equal(gx, nhwc(t.grad))


@pytest.mark.parametrize("size", [1, 2, (4, 5), (7, 3), 9], ids=str)
@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_adaptive_max_pool_picks_pytorchs_winners(image: np.ndarray, size: Any) -> None:
    x = image.reshape(1, 6, 6, 1)
    y, gx = max_pool_gradient(x, size, op=ops.adaptive_max_pool2d)
    t = nchw(x).requires_grad_()
    want = torch.nn.functional.adaptive_max_pool2d(t, size)
    want.backward(torch.ones_like(want))
    np.testing.assert_array_equal(y, nhwc(want))
    np.testing.assert_array_equal(gx, nhwc(t.grad))


@pytest.mark.parametrize("op", [ops.max_pool2d, ops.adaptive_max_pool2d])
def test_the_first_of_equals_takes_all(op: Any) -> None:
    y, gx = max_pool_gradient(np.ones((1, 2, 2, 1)), 2 if op is ops.max_pool2d else 1, op=op)
    assert (y.item(), gx.ravel().tolist()) == (1, [1, 0, 0, 0])


def test_a_window_that_sees_padding_only_is_minus_infinity() -> None:
    """Dilation can step over a small image. Its gradient reaches no pixel."""
    y, gx = max_pool_gradient(np.ones((1, 3, 3, 1)), 2, 1, 1, 4)
    np.testing.assert_array_equal(y, [[[[-INF]]]])
    assert not gx.any()


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_what_is_not_finite_stays_in_its_windows(value: float) -> None:
    x = np.ones((1, 5, 5, 1))
    x[0, 2, 4] = value
    for op in ops.adaptive_avg_pool2d, ops.adaptive_max_pool2d:
        y = op(x, (2, 3)).data[0, :, :, 0]
        assert np.isfinite(y[:, :2]).all()
    np.testing.assert_array_equal(ops.adaptive_avg_pool2d(x, (2, 3)).data[0, :, 2, 0], [value] * 2)


def test_a_window_of_more_places_than_a_byte_counts(rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 17, 17, 2))
    x[0, 16, 16] = 10
    y, gx = max_pool_gradient(x, 17)
    assert y.ravel().tolist() == [10, 10]
    assert (gx[0, 16, 16].tolist(), gx.sum()) == ([1, 1], 2)


def test_max_pool_of_integers() -> None:
    x = Tensor(np.array([[[[3]], [[200]]]], dtype=np.uint8))
    y = ops.max_pool2d(x, (2, 1))
    assert (y.item(), y.dtype) == (200, np.uint8)
    y = ops.adaptive_max_pool2d(x, 1)
    assert (y.item(), y.dtype) == (200, np.uint8)
    y = ops.max_pool2d(Tensor(np.full((1, 2, 2, 1), -5)), 3, 1, "same")
    np.testing.assert_array_equal(y.data, np.full((1, 2, 2, 1), -5))


def test_padding_counts_in_an_average_unless_told() -> None:
    x = np.ones((1, 2, 2, 1))
    assert ops.avg_pool2d(x, 2, 2, 1).data.ravel().tolist() == [0.25] * 4
    assert ops.avg_pool2d(x, 2, 2, 1, count_include_pad=False).data.ravel().tolist() == [1] * 4
    assert ops.avg_pool2d(x, 2, 2, ((1, 1), (1, 1))).data.ravel().tolist() == [0.25] * 4
    assert ops.avg_pool2d(x, 3, 1, "same").data.ravel().tolist() == [1] * 4
    assert ops.avg_pool2d(x, 3, 1, "same", count_include_pad=True).data.ravel().tolist() == [1] * 4


def test_averages_in_float16_count_and_sum_further_than_it_can() -> None:
    x = Tensor(np.full((1, 51, 53, 1), 100, np.float16))  # 2703 places, which float16 rounds to 2704; a sum of 270,300
    for y in ops.avg_pool2d(x, (51, 53)), ops.adaptive_avg_pool2d(x, 1), ops.adaptive_avg_pool2d(x, (1, 2)):
        np.testing.assert_array_equal(y.data, np.full(y.shape, 100, np.float16))


def test_gradients_in_float16_count_further_than_it_can() -> None:
    """66,000 pixels are more than its largest number: a gradient divided by that is not 0."""
    gy = np.full((1, 1, 1, 1), 1000, np.float16)
    for pool in (lambda x: ops.avg_pool2d(x, (200, 330)), lambda x: ops.adaptive_avg_pool2d(x, 1)):
        x = Tensor(np.zeros((1, 200, 330, 1), np.float16), requires_grad=True)
        pool(x).backward(gy)
        np.testing.assert_array_equal(x.grad.data, np.full(x.shape, 1000 / 66_000, np.float16))


def test_adaptive_pools_keep_a_size_that_is_none() -> None:
    for op in ops.adaptive_avg_pool2d, ops.adaptive_max_pool2d:
        np.testing.assert_array_equal(op(X, None).data, X.data)
        assert op(X, (None, 2)).shape == (2, 6, 2, 3)
        assert op(X, (4, None)).shape == (2, 4, 5, 3)
        assert op(X, [7, 1]).shape == (2, 7, 1, 3)


X = Tensor(np.ones((2, 6, 5, 3), dtype=np.float32))
INTEGERS = Tensor(np.ones((2, 6, 5, 3), dtype=np.int64))
BOTH: dict[str, tuple[Any, type[MiniresError], str]] = {
    "matrix": (lambda op: op(X[0, 0], 2), ShapeError, r"pool2d: input must be \(N, H, W, C\), but has shape \(5, 3\)$"),
    "one-image": (lambda op: op(X[0], 2), ShapeError, r"pool2d: .*a single image is x\.reshape\(1, \*x\.shape\)"),
    "window": (lambda op: op(X, 7), ShapeError, r"pool2d: a window of 7x7 does not fit into the padded input of 6x5"),
    "padding": (lambda op: op(X, 2, 2, 2), ArgumentError, r"pool2d: padding 2 is more than half of the window"),
    "pads": (
        lambda op: op(X, 2, 2, ((0, 2), (0, 0))),
        ArgumentError,
        r"pool2d: padding \(\(0, 2\), \(0, 0\)\) is more than half of the window \(2, 2\)",
    ),
    "padding-name": (lambda op: op(X, 2, 2, "full"), ArgumentError, r"pool2d: padding must be 'same', 'valid' or ints"),
    "kernel": (lambda op: op(X, 0), ArgumentError, r"pool2d: kernel_size must be .* at least 1, not 0"),
    "stride": (lambda op: op(X, 2, 0), ArgumentError, r"pool2d: stride must be .* at least 1, not 0"),
}
REFUSED: dict[str, tuple[Any, type[MiniresError], str]] = {
    "avg-integers": (lambda: ops.avg_pool2d(INTEGERS, 2), DTypeError, r"avg_pool2d: input must be .*int64"),
    "global-integers": (lambda: ops.adaptive_avg_pool2d(INTEGERS, 1), DTypeError, r"adaptive_avg_pool2d: input must"),
    "global-shape": (lambda: ops.adaptive_avg_pool2d(X[0], 1), ShapeError, r"adaptive_avg_pool2d: input must be"),
    "bool": (lambda: ops.max_pool2d(X > 0, 2), DTypeError, r"max_pool2d: takes numbers, not booleans"),
    "adaptive-bool": (lambda: ops.adaptive_max_pool2d(X > 0, 2), DTypeError, r"adaptive_max_pool2d: takes numbers"),
    "adaptive-shape": (lambda: ops.adaptive_max_pool2d(X[0], 2), ShapeError, r"adaptive_max_pool2d: input must be"),
    "adaptive-zero": (lambda: ops.adaptive_max_pool2d(X, (2, 0)), ArgumentError, r"at least 1, not \[2, 0\]"),
    "adaptive-nothing": (
        lambda: ops.adaptive_avg_pool2d(X[:, :0], 1),
        ShapeError,
        r"adaptive_avg_pool2d: input \(2, 0, 5, 3\) has no pixels to pool",
    ),
    "dilation": (lambda: ops.max_pool2d(X, 2, 1, 0, 0), ArgumentError, r"max_pool2d: dilation must be"),
    "dilated-window": (
        lambda: ops.max_pool2d(X, 3, 1, 0, 3),
        ShapeError,
        r"max_pool2d: a window of 3x3 with dilation \(3, 3\) does not fit into the padded input of 6x5",
    ),
    "adaptive-size": (
        lambda: ops.adaptive_avg_pool2d(X, (2, 3, 1)),
        ArgumentError,
        r"adaptive_avg_pool2d: output_size must be one int or two, of at least 1, not \[2, 3, 1\]",
    ),
}


@pytest.mark.parametrize("op", [ops.max_pool2d, ops.avg_pool2d])
@pytest.mark.parametrize(("call", "error", "message"), BOTH.values(), ids=BOTH)
def test_bad_windows_are_refused(op: Any, call: Any, error: type[MiniresError], message: str) -> None:
    with pytest.raises(error, match=message):
        call(op)


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused(call: Any, error: type[MiniresError], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
