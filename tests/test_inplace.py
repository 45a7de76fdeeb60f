"""Writes in place: refused where they would be lost, and noticed by backward where they spoil what was saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minires import Tensor, nn, no_grad, optim
from minires.errors import GraphError
from minires.nn import functional as F


def iadd(t: Tensor) -> None:
    t += 1


def assign(t: Tensor, where: Any = 0) -> None:
    t[where] = 5


def set_data(t: Tensor) -> None:
    t.data = t.data * 2


WRITES: dict[str, Callable[[Tensor], Any]] = {
    "+=": iadd,
    "-=": lambda t: t.__isub__(1),
    "*=": lambda t: t.__imul__(2),
    "/=": lambda t: t.__itruediv__(2),
    "item": assign,
    "slice": lambda t: assign(t, slice(1, None)),
    "data": set_data,
    "a reshaped view": lambda t: iadd(t.reshape(3, 2)),
    "a transposed view": lambda t: iadd(t.T),
    "a row": lambda t: iadd(t[0]),
    "a view of a view": lambda t: iadd(t[:, 1:].T),
    "detach": lambda t: iadd(t.detach()),
    "another Tensor around it": lambda t: iadd(Tensor(t)),
    "a Parameter around it": lambda t: assign(nn.Parameter(t, requires_grad=False)),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("through", [lambda x: x, lambda x: x.T.T, lambda x: x.reshape(-1).reshape(2, 3)])
def test_a_write_to_a_saved_input_is_caught(write: str, through: Callable[[Tensor], Tensor]) -> None:
    """Also where a view was saved, and where a view is written."""
    w, x = Tensor(np.ones((2, 3)), requires_grad=True), Tensor(np.arange(6.0).reshape(2, 3))
    y = (w * through(x)).sum()
    WRITES[write](x)
    with pytest.raises(GraphError, match=r"Mul\(\) saved was written in place .*version 1, saved at 0.*x = x \+ y"):
        y.backward()
    assert w.grad is None


def test_a_write_to_a_saved_output_is_caught() -> None:
    y = Tensor([1.0], requires_grad=True).exp()
    z = y.sum()
    with no_grad():
        y += 1
    with pytest.raises(GraphError, match=r"Exp\(\) saved"):
        z.backward()


def layer_and_loss(rng: np.random.Generator) -> tuple[nn.Linear, Tensor]:
    layer = nn.Linear(3, 2, generator=rng)
    x = Tensor(rng.standard_normal((4, 3)).astype(np.float32), requires_grad=True)
    return layer, layer(x).sum()


def test_an_optimizer_step_is_caught(rng: np.random.Generator) -> None:
    layer, loss = layer_and_loss(rng)
    layer.weight.grad = Tensor(np.ones((2, 3), np.float32))
    optim.SGD(layer.parameters(), lr=0.1).step()
    with pytest.raises(GraphError, match=r"Linear\(\) saved"):
        loss.backward()


def test_load_state_dict_is_caught(rng: np.random.Generator) -> None:
    layer, loss = layer_and_loss(rng)
    layer.load_state_dict({name: np.zeros(value.shape) for name, value in layer.state_dict().items()})
    with pytest.raises(GraphError, match=r"Linear\(\) saved"):
        loss.backward()


@pytest.mark.parametrize("layout", ["HWIO", "OIHW"])
def test_a_write_through_a_state_dict_is_caught(layout: str, rng: np.random.Generator) -> None:
    conv = nn.Conv2d(2, 3, 1, generator=rng)
    loss = conv(Tensor(np.ones((1, 2, 2, 2), np.float32), requires_grad=True)).sum()
    iadd(conv.state_dict(layout)["weight"])
    with pytest.raises(GraphError, match=r"Conv2d\(.* saved"):
        loss.backward()


def test_new_running_statistics_are_caught(rng: np.random.Generator) -> None:
    bn, x = nn.BatchNorm2d(2), Tensor(rng.standard_normal((2, 3, 3, 2)).astype(np.float32))
    loss = bn.eval()(x).sum()
    bn.train()(x)
    with pytest.raises(GraphError, match="BatchNormEval"):
        loss.backward()


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
def test_new_labels_do_not_reach_backward(loss: Callable[..., Tensor]) -> None:
    """Losses keep a copy of class numbers, so that a loader may reuse their memory."""
    gradients = []
    for step in (0, 1):
        z, target = Tensor(np.zeros((2, 3)), requires_grad=True), Tensor([0, 1])
        y = loss(z, target)
        target += step
        y.backward()
        gradients.append(z.grad.tolist())
    assert gradients[0] == gradients[1]


def test_new_probabilities_are_caught() -> None:
    z, target = Tensor(np.zeros((2, 3)), requires_grad=True), Tensor(np.eye(3)[:2])
    y = F.cross_entropy(z, target)
    target += 1
    with pytest.raises(GraphError, match="written in place"):
        y.backward()


HARMLESS: dict[str, Callable[[Tensor], Any]] = {
    "a clone": lambda t: iadd(t.clone()),
    "a copy by reshape": lambda t: iadd(t.T.reshape(6)),
    "out of place": lambda t: t + 1,
    "a read": lambda t: t[0].tolist(),
}


@pytest.mark.parametrize("use", HARMLESS)
def test_what_does_not_write_is_not_caught(use: str) -> None:
    w, x = Tensor(np.ones((2, 3)), requires_grad=True), Tensor(np.arange(6.0).reshape(2, 3))
    y = (w * x).sum()
    HARMLESS[use](x)
    y.backward()
    np.testing.assert_array_equal(w.grad.data, np.arange(6.0).reshape(2, 3))


def test_a_write_to_what_was_not_saved_is_not_caught() -> None:
    w, x = Tensor([1.0], requires_grad=True), Tensor([2.0])
    y = w + x
    x += 1
    y.backward()
    assert w.grad.item() == 1


@pytest.mark.parametrize("write", ["+=", "-=", "*=", "/=", "item"])
@pytest.mark.parametrize("make", [lambda p: p, lambda p: p * 2, lambda p: p.reshape(3, 2)])
def test_a_write_that_would_not_be_recorded_is_refused(write: str, make: Callable[[Tensor], Tensor]) -> None:
    p = Tensor(np.ones((2, 3)), requires_grad=True)
    t = make(p)
    with pytest.raises(GraphError, match=r"writes in place, which is not recorded.*no_grad"):
        WRITES[write](t)
    assert t.version.count == 0
    with no_grad():
        WRITES[write](t)
    assert t.version.count == 1


@pytest.mark.parametrize("write", [lambda t, p: t.__iadd__(p), lambda t, p: t.__setitem__(0, p)])
def test_a_recorded_value_written_into_a_constant_is_refused(write: Callable[[Tensor, Tensor], Any]) -> None:
    constant, p = Tensor(np.zeros(3)), Tensor(np.ones(()), requires_grad=True)
    with pytest.raises(GraphError, match="writes in place"):
        write(constant, p)
    np.testing.assert_array_equal(constant.data, 0)


def test_moving_a_model_to_where_it_is_writes_nothing(rng: np.random.Generator) -> None:
    layer, loss = layer_and_loss(rng)
    layer.to("cpu").to(np.float32)
    loss.backward()
    loss = layer(Tensor(np.ones((1, 3), np.float32), requires_grad=True)).sum()
    layer.to("float64")
    with pytest.raises(GraphError, match="written in place"):
        loss.backward()


@pytest.mark.parametrize("copy", [lambda w: w.clone(), lambda w: w * 2, lambda w: w / 2, lambda w: w - 1])
def test_what_backward_does_not_need_may_be_written(copy: Callable[[Tensor], Tensor]) -> None:
    """A copy is safe from later writes, as the refusal's message says."""
    w = Tensor([1.0, 2.0], requires_grad=True)
    h = copy(w)
    with no_grad():
        w += 1
    (h * h).sum().backward()
    assert w.grad is not None


@pytest.mark.parametrize("write", [lambda a: a.__iadd__(np.ones(5)), lambda a: a.__setitem__(7, 1.0)])
def test_a_refused_write_is_none(write: Callable[[Tensor], Any]) -> None:
    a, b = Tensor([1.0, 2.0]), Tensor([1.0, 2.0], requires_grad=True)
    y = (a * b).sum()
    with pytest.raises((ValueError, IndexError)):
        write(a)
    y.backward()
    assert b.grad.tolist() == [1, 2]


def test_a_read_only_array_is_named() -> None:
    frozen = np.ones(2)
    frozen.flags.writeable = False
    with pytest.raises(GraphError, match="read-only"):
        Tensor(frozen).__iadd__(1)


def test_elements_are_views() -> None:
    """Down to a single one, as in PyTorch."""
    x = Tensor([1.0, 2.0])
    for element in x:
        element *= 5
    assert x.tolist() == [5, 10]


def test_data_takes_a_tensor() -> None:
    """The idiom `p.data = p.data - lr * p.grad` leaves an array in p."""
    p = Tensor([1.0, 2.0], requires_grad=True)
    p.sum().backward()
    p.data = p.data - 0.5 * p.grad
    assert type(p.data) is np.ndarray
    assert p.tolist() == [0.5, 1.5]


def test_data_of_another_shape_forgets_the_gradient() -> None:
    p = Tensor([1.0, 2.0], requires_grad=True)
    p.sum().backward()
    p.data = np.zeros((1, 2), np.float32)
    assert p.grad is None


def test_numbers_that_stand_at_many_places_are_not_written() -> None:
    """NumPy makes what is expanded read-only; CuPy does not, and arrays can be made so in both."""
    rows = np.lib.stride_tricks.as_strided(np.zeros(4), (3, 4), (0, 8))
    assert rows.flags.writeable
    x = Tensor(rows)
    for write in (lambda: x.__iadd__(1), lambda: x.__setitem__(0, 1)):
        with pytest.raises(GraphError, match="into a read-only array; clone\\(\\) it first"):
            write()
    single = Tensor(np.lib.stride_tricks.as_strided(np.zeros(4), (1, 4), (0, 8)))
    single += 1
    assert single.tolist() == [[1.0] * 4]
