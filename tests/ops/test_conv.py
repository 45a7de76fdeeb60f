"""Convolution: its geometry, exact bias gradients, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor, ops
from minires.errors import ArgumentError, DTypeError, MiniresError, ShapeError


def ones(*shape: int, dtype: Any = np.float32) -> Tensor:
    return Tensor(np.ones(shape, dtype=dtype))


def test_kernel_is_not_flipped() -> None:
    x, w = np.zeros((1, 3, 3, 1)), np.zeros((3, 3, 1, 1))
    x[0, 0, 1], w[0, 1] = 5, 1
    assert ops.conv2d(x, w).item() == 5


def test_output_size_counts_rows_and_columns_apart() -> None:
    assert ops.conv2d(ones(2, 9, 16, 3), ones(3, 2, 3, 4), stride=(2, 3), padding=(1, 0)).shape == (2, 5, 5, 4)


def test_bias_gradient_is_exact_over_many_pixels(rng: np.random.Generator) -> None:
    gy = rng.random((32, 64, 64, 4), dtype=np.float32)
    b = Tensor(np.zeros(4, dtype=np.float32), requires_grad=True)
    ops.conv2d(np.zeros((32, 64, 64, 1), np.float32), np.zeros((1, 1, 1, 4), np.float32), b).backward(gy)
    np.testing.assert_allclose(b.grad.data, gy.sum((0, 1, 2), dtype=np.float64), rtol=5e-7)


X, W = ones(2, 8, 9, 3), ones(3, 3, 3, 4)
REFUSED: dict[str, tuple[Any, type[MiniresError], str]] = {
    "nchw": (
        lambda: ops.conv2d(ones(2, 3, 8, 9), W),
        ShapeError,
        r"conv2d: input \(2, 3, 8, 9\) has 9 channels.*looks like \(N, C, H, W\).*x\.permute\(0, 2, 3, 1\)",
    ),
    "channels": (
        lambda: ops.conv2d(ones(2, 8, 9, 5), W),
        ShapeError,
        r"conv2d: input \(2, 8, 9, 5\) has 5 channels in its last axis, but weight \(3, 3, 3, 4\) = .* expects 3$",
    ),
    "one-image": (lambda: ops.conv2d(ones(8, 9, 3), W), ShapeError, r"conv2d: .*a single image is x\.reshape\(1"),
    "matrix": (lambda: ops.conv2d(ones(8, 3), W), ShapeError, r"conv2d: input must be \(N, H, W, C\).*\(8, 3\)$"),
    "weight": (lambda: ops.conv2d(X, ones(3, 3, 3)), ShapeError, r"conv2d: weight must be \(KH, KW, C, O\)"),
    "bias": (lambda: ops.conv2d(X, W, ones(3)), ShapeError, r"conv2d: bias must be \(4,\) for weight .* shape \(3,\)"),
    "window": (
        lambda: ops.conv2d(ones(2, 2, 9, 3), W),
        ShapeError,
        r"conv2d: a window of 3x3 does not fit into the padded input of 2x9 .* pad more or use a larger image",
    ),
    "images": (lambda: ops.conv2d(ones(2, 8, 9, 3, dtype=np.uint8), W), DTypeError, r"conv2d: .*uint8.*Normalize"),
    "integers": (lambda: ops.conv2d(ones(2, 8, 9, 3, dtype=np.int64), W), DTypeError, r"input\.to\('float32'\)"),
    "mixed": (lambda: ops.conv2d(ones(2, 8, 9, 3, dtype=np.float64), W), DTypeError, r"conv2d: one dtype expected"),
    "bias-dtype": (lambda: ops.conv2d(X, W, ones(4, dtype=np.float64)), DTypeError, r"conv2d: .*bias is float64"),
    "stride-zero": (lambda: ops.conv2d(X, W, stride=0), ArgumentError, r"conv2d: stride must be .* at least 1, not 0"),
    "stride-three": (
        lambda: ops.conv2d(X, W, stride=(1, 1, 1)),
        ArgumentError,
        r"conv2d: stride must be one int or two",
    ),
    "stride-float": (lambda: ops.conv2d(X, W, stride=1.5), ArgumentError, r"conv2d: stride .* not 1\.5"),
    "padding": (lambda: ops.conv2d(X, W, padding=-1), ArgumentError, r"conv2d: padding must be .* at least 0, not -1"),
    "padding-name": (
        lambda: ops.conv2d(X, W, padding="full"),
        ArgumentError,
        r"conv2d: padding must be 'same', 'valid' or ints, not 'full'",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused(call: Any, error: type[MiniresError], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
