"""detect_anomaly: the op and the user's line behind the first NaN, and writes that version counters cannot see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minires import Function, Tensor
from minires.autograd import detect_anomaly
from minires.errors import GraphError
from minires.nn import functional as F
from minires.ops.activation import ReLU
from minires.ops.conv import Conv2d
from minires.ops.linear import Linear
from minires.ops.loss import CrossEntropy
from minires.ops.norm import BatchNorm, BatchNormAddReLU
from minires.ops.pool import AvgPool2d, MaxPool2d
from minires.ops.reduce import Mean
from minires.ops.shape import Reshape


def net(x: Tensor) -> Tensor:
    """Ten Functions, a line each."""
    kernel, ones, zeros = np.ones((3, 3, 2, 4)), np.ones(4), np.zeros(4)
    x = F.conv2d(x, kernel, padding=1)
    shortcut = F.batch_norm(x, None, None, ones, zeros, training=True)
    x = F.relu(shortcut)
    x = F.batch_norm(x, None, None, ones, zeros, training=True, add=shortcut, relu=True)
    x = F.max_pool2d(x, 2)
    x = F.avg_pool2d(x, (2, 3))
    x = x.flatten(1)
    x = F.linear(x, kernel[0, 0].T @ kernel[0, 0])
    losses = F.cross_entropy(x, [0, 3], reduction="none")
    return losses.mean()


PLACES = {
    Conv2d: "x = F.conv2d(x, kernel, padding=1)",
    BatchNorm: "shortcut = F.batch_norm(x, None, None, ones, zeros, training=True)",
    ReLU: "x = F.relu(shortcut)",
    BatchNormAddReLU: "x = F.batch_norm(x, None, None, ones, zeros, training=True, add=shortcut, relu=True)",
    MaxPool2d: "x = F.max_pool2d(x, 2)",
    AvgPool2d: "x = F.avg_pool2d(x, (2, 3))",
    Reshape: "x = x.flatten(1)",
    Linear: "x = F.linear(x, kernel[0, 0].T @ kernel[0, 0])",
    CrossEntropy: 'losses = F.cross_entropy(x, [0, 3], reduction="none")',
    Mean: "return losses.mean()",
}


def poison(monkeypatch: pytest.MonkeyPatch, op: type[Function], method: str, value: float) -> None:
    """Make the first array that a method of `op` returns hold one `value`."""
    right: Callable[..., Any] = getattr(op, method)

    def wrong(self: Function, *arrays: Any) -> Any:
        result = right(self, *arrays)
        first, *rest = result if isinstance(result, tuple) else (result,)
        first = np.array(first)
        first.flat[0] = value
        return (first, *rest) if isinstance(result, tuple) else first

    monkeypatch.setattr(op, method, wrong)


@pytest.fixture
def x(rng: np.random.Generator) -> Tensor:
    return Tensor(rng.standard_normal((2, 4, 6, 2)), requires_grad=True)


@pytest.mark.parametrize("op", PLACES)
@pytest.mark.parametrize(("method", "value"), [("forward", np.nan), ("forward", np.inf), ("backward", np.nan)])
def test_ten_places(monkeypatch: pytest.MonkeyPatch, op: type[Function], method: str, value: float, x: Tensor) -> None:
    poison(monkeypatch, op, method, value)
    with detect_anomaly(), pytest.raises(GraphError) as caught:
        net(x).backward()
    message = str(caught.value)
    assert f"{op.__name__}(" in message
    assert ("made a NaN or an infinity, called from" if method == "forward" else "backward of") in message
    assert __file__ in message
    assert message.endswith(PLACES[op])


def test_a_healthy_net_passes(x: Tensor) -> None:
    """And gets the same gradients as without."""
    net(x).backward()
    normal = x.grad.data.copy()
    x.grad = None
    with detect_anomaly():
        net(x).backward()
    np.testing.assert_array_equal(x.grad.data, normal)


FORWARD = {
    "Log": (-1.0, lambda x: x.log()),
    "Div": (0.0, lambda x: x / x),
    "Exp": (1000.0, lambda x: x.exp()),
    "Sqrt": (-1.0, lambda x: x.sqrt()),
    "Pow": (0.0, lambda x: x**-1),
    "Mul": (3e38, lambda x: x * x),
}


@pytest.mark.parametrize("op", FORWARD)
def test_forward(op: str) -> None:
    value, call = FORWARD[op]
    with detect_anomaly(), pytest.raises(GraphError, match=rf"{op}\(\) made a NaN or an infinity, called from .*{op}"):
        call(Tensor([value]))
    assert not np.isfinite(call(Tensor([value])).data).all()


def test_what_was_given_is_not_blamed() -> None:
    with detect_anomaly(), pytest.raises(GraphError, match=r"Add\(\) was given"):
        Tensor([np.nan]) + 1


def test_backward() -> None:
    x = Tensor([0.0], requires_grad=True)
    with detect_anomaly():
        y = x.sqrt()
        with pytest.raises(GraphError, match=r"backward of Sqrt\(\) made .* input 0; .* called from .*y = x\.sqrt\(\)"):
            y.backward()
    x.sqrt().backward()
    assert x.grad.item() == np.inf


def test_backward_of_a_graph_made_before() -> None:
    y = Tensor([0.0], requires_grad=True).sqrt()
    with detect_anomaly(), pytest.raises(GraphError, match="run the forward pass under detect_anomaly"):
        y.backward()


RAW_WRITES: dict[str, Callable[[Tensor, np.ndarray], None]] = {
    "data": lambda x, earlier: x.data.__setitem__(0, 9),
    "numpy": lambda x, earlier: x.numpy().__setitem__(1, 9),
    "a view of data": lambda x, earlier: x.data[1:].__iadd__(1),
    "an earlier view": lambda x, earlier: earlier.__setitem__(2, 9),
}


@pytest.mark.parametrize("write", RAW_WRITES)
def test_raw_writes(write: str) -> None:
    """Only this mode sees them; it names the line of the op whose saved array was spoilt."""
    array = np.array([1.0, 2.0, 3.0])
    w, x = Tensor(np.ones(3), requires_grad=True), Tensor(array)

    def product() -> Tensor:
        return (w * x).sum()

    with detect_anomaly():
        y = product()
    unseen = product()
    RAW_WRITES[write](x, array)
    with pytest.raises(GraphError, match=r"Mul\(\) saved was written behind .*return \(w \* x\)\.sum\(\)"):
        y.backward()
    assert w.grad is None
    unseen.backward()


def test_integers_are_finite() -> None:
    with detect_anomaly():
        assert (Tensor([1, 2]) + 1).tolist() == [2, 3]
