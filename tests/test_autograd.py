"""The graph: what reaches the leaves, what is refused, and what a gradient's way back may not disturb."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from minires import Function, Tensor, nn, ops
from minires.errors import GraphError, ShapeError
from minires.nn import functional as F
from minires.ops.elementwise import Exp

SHAPE = (2, 4, 4, 3)
WEIGHT = np.linspace(-1, 1, 2 * 2 * 3 * 5).reshape(2, 2, 3, 5)
ONES, HALVES = np.ones(3), np.full(3, 0.5)

# One call for each Function: it takes an image batch of SHAPE in float64.
CALLS = {
    "Add": lambda x: x + 1,
    "Sub": lambda x: 1 - x,
    "Mul": lambda x: x * 2,
    "Div": lambda x: 1 / x,
    "Pow": lambda x: x**3,
    "Maximum": lambda x: x.maximum(0.5),
    "Minimum": lambda x: x.minimum(1.5),
    "Where": lambda x: x.where(x.detach() > 1, 2),
    "Clip": lambda x: x.clip(0.7, 1.5),
    "Abs": Tensor.abs,
    "Neg": lambda x: -x,
    "Exp": Tensor.exp,
    "Log": Tensor.log,
    "Sqrt": Tensor.sqrt,
    "ReLU": Tensor.relu,
    "LeakyReLU": F.leaky_relu,
    "Sigmoid": Tensor.sigmoid,
    "Tanh": Tensor.tanh,
    "SiLU": F.silu,
    "GELU": F.gelu,
    "Dropout": F.dropout,
    "Cast": lambda x: x.to("float32"),
    "MatMul": lambda x: x @ WEIGHT[0, 0],
    "Linear": lambda x: F.linear(x, WEIGHT[0, 0].T, np.ones(5)),
    "Conv2d": lambda x: F.conv2d(x, WEIGHT),
    "ConvTranspose2d": lambda x: F.conv_transpose2d(x, WEIGHT.swapaxes(2, 3)),
    "MaxPool2d": lambda x: F.max_pool2d(x, 2),
    "AvgPool2d": lambda x: F.avg_pool2d(x, 2),
    "AdaptiveAvgPool2d": lambda x: F.adaptive_avg_pool2d(x, 3),
    "AdaptiveMaxPool2d": lambda x: F.adaptive_max_pool2d(x, 3),
    "Sum": lambda x: x.sum(1),
    "Mean": lambda x: x.mean((0, 2)),
    "Var": lambda x: x.var((0, 2)),
    "Std": lambda x: x.std((0, 2)),
    "LogSumExp": lambda x: x.logsumexp((0, 2)),
    "AMax": Tensor.max,
    "AMin": lambda x: x.amin((0, 2)),
    "MaxDim": lambda x: x.max(1).values,
    "MinDim": lambda x: x.min(1).values,
    "Softmax": lambda x: x.softmax(-1),
    "LogSoftmax": lambda x: x.log_softmax(-1),
    "NLLLoss": lambda x: F.nll_loss(x[:, 0, 0], [0, 2], reduction="none"),
    "CrossEntropy": lambda x: F.cross_entropy(x[:, 0, 0], [0, 2], reduction="none"),
    "SoftCrossEntropy": lambda x: F.cross_entropy(x[:, 0, 0], [0, 2], reduction="none", label_smoothing=0.1),
    "SquaredError": lambda x: F.mse_loss(x, 0 * x.data, reduction="none"),
    "BCEWithLogits": lambda x: F.binary_cross_entropy_with_logits(x, 0 * x.data, reduction="none"),
    "BatchNorm": lambda x: F.batch_norm(x, None, None, training=True),
    "BatchNormAddReLU": lambda x: F.batch_norm(x, None, None, training=True, add=x, relu=True),
    "BatchNormEval": lambda x: F.batch_norm(x, HALVES, ONES),
    "GroupNorm": lambda x: F.group_norm(x, 3),
    "Reshape": lambda x: x.reshape(2, -1),
    "Permute": lambda x: x.permute(0, 3, 1, 2),
    "Index": lambda x: x[:, 1:],
    "Take": lambda x: x[:, [1, 0, 1]],
    "Expand": lambda x: x.expand(2, *SHAPE),
    "Concatenate": lambda x: ops.concatenate([x, np.ones(SHAPE)], -1),
    "Pad": lambda x: F.pad(x, (0, 0, 1, 2)),
}


def leaf(values: Any, dtype: str = "float64") -> Tensor:
    return Tensor(np.asarray(values, dtype), requires_grad=True)


def concrete(cls: type[Function]) -> set[str]:
    """The names of minires' own Functions below `cls`."""
    below = [c for c in cls.__subclasses__() if c.__module__.startswith("minires.")]
    return set().union(*(concrete(c) for c in below)) if below else {cls.__name__}


def test_every_function_has_a_call() -> None:
    assert concrete(Function) == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_backward_twice(name: str, rng: np.random.Generator) -> None:
    """It raises and leaves the gradient alone; with retain_graph it adds the same gradient again."""
    x = leaf(rng.uniform(0.6, 2, SHAPE))
    y = CALLS[name](x)
    assert type(y.node).__name__ == name
    seed = rng.standard_normal(y.shape).astype(y.dtype)
    y.backward(seed, retain_graph=True)
    once = x.grad.data.copy()
    y.backward(seed)
    np.testing.assert_array_equal(x.grad.data, once + once)
    with pytest.raises(GraphError, match=rf"{name}\(.*a second time"):
        y.backward(seed)
    np.testing.assert_array_equal(x.grad.data, once + once)


def test_second_backward_through_a_shared_part_raises() -> None:
    x = leaf([1.0, 2.0])
    h = x + 1
    (h * 2).sum().backward()
    with pytest.raises(GraphError, match=r"Add\(\) a second time"):
        (h * 3).sum().backward()


SHARED = {
    "three times": (lambda x: x * x * x, lambda x: 3 * x**2),
    "with itself": (lambda x: x + x, lambda x: 0 * x + 2),
    "difference": (lambda x: x - x, lambda x: 0 * x),
    "diamond": (lambda x: (h := x * 3, (h * h) * (h + 1))[1], lambda x: (3 * (3 * x) ** 2 + 2 * 3 * x) * 3),
    "skip": (lambda x: (h := x + x * x, h + h * x + x)[1], lambda x: 3 * x**2 + 4 * x + 2),
}


@pytest.mark.parametrize("name", SHARED)
def test_shared_inputs(name: str, rng: np.random.Generator) -> None:
    function, derivative = SHARED[name]
    x = leaf(rng.standard_normal(5))
    function(x).sum().backward()
    np.testing.assert_allclose(x.grad.data, derivative(x.data), rtol=1e-14, atol=1e-14)


def test_a_ladder_of_diamonds_is_linear() -> None:
    """Each node is visited once: 2**60 paths take no time."""
    x = leaf(1.0)
    y = x
    for _ in range(60):
        y = y + y
    y.backward()
    assert x.grad.item() == 2.0**60


@pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 1), (2, 1, 3), (1, 4, 1), (2, 4, 3)])
def test_broadcast_gradients_are_summed(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    a, b, seed = leaf(rng.standard_normal((2, 4, 3))), leaf(rng.standard_normal(shape)), rng.standard_normal((2, 4, 3))
    (a + b).backward(seed)
    added = 3 - len(shape)
    axes = (*range(added), *(added + i for i, size in enumerate(shape) if size == 1 and (2, 4, 3)[added + i] != 1))
    np.testing.assert_array_equal(a.grad.data, seed)
    np.testing.assert_allclose(b.grad.data, seed.sum(axes).reshape(shape), rtol=1e-14, atol=1e-14)


@dataclass(eq=False)
class Halves(Function):
    """Two differentiable outputs, and the length of each, which is not."""

    differentiable_outputs: ClassVar[int] = 2

    def forward(self, x: Any) -> Any:
        middle = len(x) // 2
        return x[:middle] * 2, x[middle:] * 3, np.array(middle)

    def backward(self, gfirst: Any, gsecond: Any) -> Any:
        return np.concatenate([2 * gfirst, 3 * gsecond])


@pytest.mark.parametrize(
    ("weights", "expected"), [((1, 1), [2, 2, 3, 3]), ((1, 0), [2, 2, 0, 0]), ((0, 5), [0, 0, 15, 15])]
)
def test_several_outputs(weights: tuple[int, int], expected: list[int]) -> None:
    """An output that nothing used sends zeros."""
    x = leaf([1, 2, 3, 4])
    first, second, middle = Halves()(x)
    assert first.requires_grad
    assert second.requires_grad
    assert not middle.requires_grad
    sum((part * weight).sum() for part, weight in zip((first, second), weights, strict=True) if weight).backward()
    np.testing.assert_array_equal(x.grad.data, expected)


def test_indices_carry_no_gradient() -> None:
    x = leaf([[1, 5, 2], [7, 0, 1]])
    assert not x.max(1).indices.requires_grad
    assert not x.argmax(1).requires_grad
    assert not (x > 1).requires_grad


@dataclass(eq=False)
class Planted(Function):
    """Returns whatever it was made with."""

    def __init__(self, gradient: Any) -> None:
        self.gradient = gradient

    def forward(self, x: Any) -> Any:
        return x * 2

    def backward(self, gy: Any) -> Any:
        return self.gradient


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (np.ones(2), r"gradient of input 0 is shape \(2,\), float64"),
        (np.ones((1, 3)), r"gradient of input 0 is shape \(1, 3\)"),
        (np.ones(3, np.float32), r"gradient of input 0 is shape \(3,\), float32"),
        (None, "gradient of input 0 is None"),
        ((np.ones(3), np.ones(3)), "2 gradients for 1 inputs"),
    ],
)
def test_a_wrong_gradient_names_the_node(gradient: Any, message: str) -> None:
    x = leaf([1, 2, 3])
    with pytest.raises(GraphError, match=r"Planted\(\).*" + message):
        (Planted(gradient)(x) * 2).sum().backward()
    assert x.grad is None


def test_what_a_function_must_give() -> None:
    x = leaf([1.0])
    with pytest.raises(NotImplementedError, match="Function has no forward"):
        Function()(x)
    forward_only = type("ForwardOnly", (Function,), {"forward": lambda self, x: x * 2})
    with pytest.raises(NotImplementedError, match="ForwardOnly has no backward"):
        forward_only()(x).backward()


@pytest.mark.parametrize(
    ("make", "gradient", "error", "message"),
    [
        (lambda x: x * 2, None, GraphError, r"only for scalar outputs.*\(3,\).*\.mean\(\)"),
        (lambda x: x.detach(), None, GraphError, "no graph"),
        (lambda x: x.detach() * 2, np.ones(3), GraphError, "no graph"),
        (lambda x: x * 2, np.ones(2), ShapeError, r"gradient is \(2,\)"),
        (lambda x: x * 2, Tensor(np.ones(3, np.float32)), ShapeError, "float32"),
    ],
)
def test_backward_refuses(make: Any, gradient: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make(leaf([1, 2, 3])).backward(gradient)


@pytest.mark.parametrize("make", [np.asarray, Tensor, np.ndarray.tolist])
def test_the_gradient_argument(make: Any) -> None:
    """An array, a Tensor or a list; the result is that of sum(y * gradient)."""
    x = leaf([1, 2, 3])
    (x * x).backward(make(np.array([1.0, 10.0, 100.0])))
    np.testing.assert_array_equal(x.grad.data, [2, 40, 600])


def test_a_leaf_is_its_own_derivative() -> None:
    x, seed = leaf([1.0, 2.0]), np.array([3.0, 4.0])
    x.backward(seed)
    x.backward(seed)
    np.testing.assert_array_equal(x.grad.data, [6, 8])
    np.testing.assert_array_equal(seed, [3, 4])


@pytest.mark.parametrize("op", [lambda a, b: a + b, lambda a, b: a.reshape(3) + b.reshape(3), lambda a, b: a - b])
def test_gradients_never_alias(op: Any) -> None:
    """Neither each other, nor the caller's gradient, nor what a hook kept."""
    a, b, seed, kept = leaf([1, 2, 3]), leaf([4, 5, 6]), np.ones(3), []
    h = a + 0
    h.register_hook(kept.append)
    op(h, b).backward(seed)
    arrays = [a.grad.data, b.grad.data, seed, kept[0].data]
    for i, j in [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3)]:
        assert not np.shares_memory(arrays[i], arrays[j])
    a.grad.data[...] = 100
    assert abs(b.grad.data).max() == 1
    np.testing.assert_array_equal(seed, 1)


def test_gradients_accumulate_over_graphs() -> None:
    x = leaf([1.0, 2.0])
    for _ in range(2):
        (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad.data, [4, 8])


def test_unused_and_frozen_leaves_get_nothing() -> None:
    x, unused, frozen = leaf([1.0]), leaf([1.0]), Tensor([1.0], dtype="float64")
    (x * frozen).sum().backward()
    assert unused.grad is None
    assert frozen.grad is None


def test_detach_cuts_the_graph() -> None:
    x = leaf([2.0])
    (x * x.detach()).sum().backward()
    np.testing.assert_array_equal(x.grad.data, [2])
    assert x.detach().data is x.data


def test_20000_chained_ops() -> None:
    x = leaf([1.0, 2.0])
    y = x
    for _ in range(10_000):
        y = (y + 1) * 1
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.data, 1)


def test_600_residual_blocks(rng: np.random.Generator) -> None:
    conv, bn = nn.Conv2d(2, 2, 3, padding=1, bias=False, generator=rng), nn.BatchNorm2d(2)
    x = leaf(rng.standard_normal((2, 2, 2, 2)), "float32")
    y = x
    for _ in range(600):
        y = bn(conv(y), add=y, relu=True)
    y.mean().backward()
    for gradient in (x.grad, conv.weight.grad, bn.weight.grad):
        assert np.isfinite(gradient.data).all()
        assert abs(gradient.data).max() > 0


def test_a_function_runs_once(rng: np.random.Generator) -> None:
    """A second run would overwrite what the first saved."""
    function = Exp()
    x = Tensor(rng.standard_normal(3), requires_grad=True)
    function(x)
    with pytest.raises(GraphError, match=r"Exp\(\) has run already"):
        function(x)


@dataclass(eq=False)
class SumOfBoth(Function):
    """2a + 2b^T, whose second gradient is a view of the first."""

    def forward(self, a: Any, b: Any) -> Any:
        return 2 * a + 2 * b.T

    def backward(self, gy: Any) -> Any:
        g = 2 * gy
        return g, g.T


def test_a_gradient_that_another_one_views_is_not_summed_into() -> None:
    a, b = leaf(np.ones((2, 2))), leaf(np.ones((2, 2)))
    c = a * 3  # runs first, so that its share comes to a when SumOfBoth's is there already
    (c + SumOfBoth()(a, b)).sum().backward()
    assert b.grad.tolist() == [[2, 2], [2, 2]]
    assert a.grad.tolist() == [[5, 5], [5, 5]]


@dataclass(eq=False)
class Total(Function):
    """A sum, with gradients that are NumPy's numbers where x has no dimensions."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x.sum())

    def backward(self, gy: np.ndarray) -> Any:
        return np.float64(gy)


def test_gradients_that_are_numbers_add_up() -> None:
    x = Tensor(3.0, dtype="float64", requires_grad=True)
    sum((Total()(x) * k for k in (1, 10, 100)), Total()(x)).backward()
    assert x.grad.item() == 112
    Total()(x).backward()
    assert x.grad.item() == 113


def test_adding_to_a_gradient_is_a_write_in_place() -> None:
    x, w = (Tensor(np.ones(3), requires_grad=True) for _ in range(2))
    x.sum().backward()
    y = (w * x.grad).sum()
    x.sum().backward()
    with pytest.raises(GraphError, match="written in place"):
        y.backward()
