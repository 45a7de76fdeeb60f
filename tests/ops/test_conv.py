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


def test_bias_is_added_before_float16_is_rounded() -> None:
    """2,048 + 0.75 + 0.5 is nearest to 2,050; rounded in between, each addition would leave 2,048."""
    x, b = np.array([2048, 0.75], np.float16).reshape(1, 1, 1, 2), np.array([0.5], np.float16)
    w = np.ones((1, 1, 2, 1), np.float16)
    assert ops.conv2d(x, w, b).item() == 2050
    assert ops.conv_transpose2d(x, w.swapaxes(2, 3), b).item() == 2050


def test_same_puts_the_odd_one_last() -> None:
    """A stride of 2 over 4 places under a window of 3: the first window starts on the image, not before it."""
    x, w = np.array([1.0, 2, 3, 4]).reshape(1, 1, 4, 1), np.array([100.0, 10, 1]).reshape(1, 3, 1, 1)
    assert ops.conv2d(x, w, stride=2, padding="same").data.ravel().tolist() == [123, 340]
    assert ops.conv2d(x, w, stride=2, padding=(0, 1)).data.ravel().tolist() == [12, 234]
    assert ops.conv2d(x, w, stride=2, padding="valid").data.ravel().tolist() == [123]


def test_same_depends_on_the_image() -> None:
    sizes = [ops.conv2d(ones(1, s, s + 1, 1), ones(3, 3, 1, 1), None, 2, "same").shape[1:3] for s in (1, 4, 5)]
    assert sizes == [(1, 1), (2, 3), (3, 3)]


def test_groups_are_convolutions_side_by_side(rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((2, 5, 4, 6)), rng.standard_normal((3, 2, 2, 9))
    parts = [ops.conv2d(x[..., 2 * g : 2 * g + 2], w[..., 3 * g : 3 * g + 3], dilation=(2, 1)).data for g in range(3)]
    whole = ops.conv2d(x, w, dilation=(2, 1), groups=3).data
    np.testing.assert_allclose(whole, np.concatenate(parts, axis=3), rtol=1e-13, atol=1e-13)


def test_groups_of_any_integer_type_are_one_geometry() -> None:
    x, w = Tensor(np.ones((1, 3, 3, 2)), requires_grad=True), ones(3, 3, 1, 2, dtype=np.float64)
    nodes = {repr(ops.conv2d(x, w, groups=groups).node) for groups in (2, np.int64(2), np.int8(2))}
    assert len(nodes) == 1
    assert "groups=2)" in nodes.pop()
    assert ops.conv2d(x, ones(3, 3, 2, 2, dtype=np.float64), groups=True).shape == (1, 1, 1, 2)


def test_dilation_is_a_kernel_with_holes(rng: np.random.Generator) -> None:
    x, w, holes = rng.standard_normal((2, 8, 9, 2)), rng.standard_normal((3, 2, 2, 3)), np.zeros((7, 3, 2, 3))
    holes[::3, ::2] = w
    dilated = ops.conv2d(x, w, None, 2, 1, (3, 2)).data
    np.testing.assert_allclose(dilated, ops.conv2d(x, holes, None, 2, 1).data, rtol=1e-13, atol=1e-13)


def test_transposed_convolution_is_the_input_gradient(rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((2, 8, 7, 3)), rng.standard_normal((3, 3, 3, 4))
    image = Tensor(x, requires_grad=True)
    y = ops.conv2d(image, w, None, 2, 1)
    gy = rng.standard_normal(y.shape)
    y.backward(gy)
    np.testing.assert_array_equal(ops.conv_transpose2d(gy, w, None, 2, 1, (1, 0)).data, image.grad.data)


def test_output_padding_adds_rows_at_the_bottom() -> None:
    """With the stride, what a further row of the input would reach; it holds the bias."""
    x, w, b = np.ones((1, 2, 2, 1)), np.ones((1, 1, 1, 1)), np.array([0.5])
    y = ops.conv_transpose2d(x, w, b, 2, 0, 1)
    np.testing.assert_array_equal(y.data[0, :, :, 0], 0.5 + np.outer([1, 0, 1, 0], [1, 0, 1, 0]))


X, W = ones(2, 8, 9, 3), ones(3, 3, 3, 4)
GROUPED = ones(3, 3, 2, 6)  # for 2 groups: 4 channels to 6
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
    "weight-of-no-rows": (
        lambda: ops.conv2d(X, ones(0, 3, 3, 4)),
        ShapeError,
        r"conv2d: weight .* KH, KW and O at least",
    ),
    "weight-of-no-outputs": (
        lambda: ops.conv2d(X, ones(3, 3, 3, 0)),
        ShapeError,
        r"conv2d: weight must be \(KH, KW, C, O\), KH, KW and O at least 1, but has shape \(3, 3, 3, 0\)",
    ),
    "transposed-weight-of-no-inputs": (
        lambda: ops.conv_transpose2d(ones(2, 8, 9, 0), ones(3, 3, 3, 0)),
        ShapeError,
        r"conv_transpose2d: weight must be \(KH, KW, O, I\), KH, KW and I at least 1",
    ),
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
    "add": (
        lambda: ops.conv2d(X, W, add=ones(2, 8, 9, 4)),
        ShapeError,
        r"conv2d: add has shape \(2, 8, 9, 4\), but the output \(2, 6, 7, 4\); project the shortcut first",
    ),
    "add-dtype": (
        lambda: ops.conv2d(X, W, add=ones(2, 6, 7, 4, dtype=np.float64)),
        DTypeError,
        r"conv2d: one dtype expected, but input is float32, add is float64",
    ),
    "stride-float-after-int": (
        lambda: [ops.conv2d(X, W, stride=stride) for stride in (1, 1.0)],
        ArgumentError,
        r"conv2d: stride .* not 1\.0",
    ),
    "bias-dtype": (lambda: ops.conv2d(X, W, ones(4, dtype=np.float64)), DTypeError, r"conv2d: .*bias is float64"),
    "stride-zero": (lambda: ops.conv2d(X, W, stride=0), ArgumentError, r"conv2d: stride must be .* at least 1, not 0"),
    "stride-three": (
        lambda: ops.conv2d(X, W, stride=(1, 1, 1)),
        ArgumentError,
        r"conv2d: stride must be one int or two",
    ),
    "stride-float": (lambda: ops.conv2d(X, W, stride=1.5), ArgumentError, r"conv2d: stride .* not 1\.5"),
    "padding": (lambda: ops.conv2d(X, W, padding=-1), ArgumentError, r"conv2d: padding must be .* at least 0, not -1"),
    "nchw-groups": (
        lambda: ops.conv2d(ones(2, 4, 8, 9), GROUPED, groups=2),
        ShapeError,
        r"looks like \(N, C, H, W\).*x\.permute\(0, 2, 3, 1\)",
    ),
    "groups-channels": (
        lambda: ops.conv2d(ones(2, 8, 9, 5), GROUPED, groups=2),
        ShapeError,
        r"has 5 channels in its last axis, but weight \(3, 3, 2, 6\) = \(KH, KW, C/groups, O\), groups=2, expects 4$",
    ),
    "groups-outputs": (
        lambda: ops.conv2d(ones(2, 8, 9, 8), GROUPED, groups=4),
        ShapeError,
        r"conv2d: 4 groups cannot share evenly the 6 channels of weight \(3, 3, 2, 6\) = \(KH, KW, C/groups, O\)",
    ),
    "groups-zero": (lambda: ops.conv2d(X, W, groups=0), ArgumentError, r"conv2d: groups must be an int .* not 0"),
    "groups-pair": (lambda: ops.conv2d(X, W, groups=(1, 1)), ArgumentError, r"conv2d: groups .* not \(1, 1\)"),
    "dilation-zero": (lambda: ops.conv2d(X, W, dilation=0), ArgumentError, r"conv2d: dilation must be .* not 0"),
    "dilation-window": (
        lambda: ops.conv2d(X, W, dilation=(5, 1)),
        ShapeError,
        r"conv2d: a window of 3x3 with dilation \(5, 1\) does not fit into the padded input of 8x9",
    ),
    "padding-three": (
        lambda: ops.conv2d(X, W, padding=((0, 1), (1, 2, 3))),
        ArgumentError,
        r"conv2d: padding must be one int or two, of at least 0, not \(1, 2, 3\)",
    ),
    "padding-mixed": (lambda: ops.conv2d(X, W, padding=((0, 1), 1)), ArgumentError, r"conv2d: padding must be"),
    "padding-negative": (
        lambda: ops.conv2d(X, W, padding=((0, -1), (1, 1))),
        ArgumentError,
        r"conv2d: padding .* not \(0, -1\)",
    ),
    "transposed-nchw": (
        lambda: ops.conv_transpose2d(ones(2, 4, 8, 9), W),
        ShapeError,
        r"conv_transpose2d: input \(2, 4, 8, 9\).* \(KH, KW, O, I\) expects 4; it looks like \(N, C, H, W\)",
    ),
    "transposed-channels": (
        lambda: ops.conv_transpose2d(X, W),
        ShapeError,
        r"conv_transpose2d: input .* has 3 channels in its last axis, but weight .* = \(KH, KW, O, I\) expects 4$",
    ),
    "transposed-groups": (
        lambda: ops.conv_transpose2d(X, ones(3, 3, 2, 3), groups=2),
        ShapeError,
        r"conv_transpose2d: 2 groups cannot share evenly the 3 channels of weight .* = \(KH, KW, O/groups, I\)",
    ),
    "transposed-bias": (
        lambda: ops.conv_transpose2d(ones(2, 8, 9, 4), W, ones(4)),
        ShapeError,
        r"conv_transpose2d: bias must be \(3,\) for weight",
    ),
    "transposed-same": (
        lambda: ops.conv_transpose2d(ones(2, 8, 9, 4), W, padding="same"),
        ArgumentError,
        r"conv_transpose2d: padding must be one int or two, not 'same'.*choose one with padding and output_padding",
    ),
    "output-padding": (
        lambda: ops.conv_transpose2d(ones(2, 8, 9, 4), W, None, 2, 0, (1, 2)),
        ArgumentError,
        r"conv_transpose2d: output_padding \(1, 2\) must be less than stride \(2, 2\) or dilation \(1, 1\); pad",
    ),
    "transposed-to-nothing": (
        lambda: ops.conv_transpose2d(ones(2, 1, 9, 4), W, None, 1, 2),
        ShapeError,
        r"conv_transpose2d: input \(2, 1, 9, 4\) under a window of 3x3.* would give an output of -1x7; pad less",
    ),
    "transposed-of-nothing": (
        lambda: ops.conv_transpose2d(ones(2, 0, 9, 4), W),
        ShapeError,
        r"conv_transpose2d: input \(2, 0, 9, 4\) .* use a larger image",
    ),
    "transposed-mixed": (
        lambda: ops.conv_transpose2d(ones(2, 8, 9, 4, dtype=np.float64), W),
        DTypeError,
        r"conv_transpose2d: one dtype expected",
    ),
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
