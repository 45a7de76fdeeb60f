"""Hooks on gradients: what they see, what they change, and in which order."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from minires import Tensor
from minires.errors import DTypeError, GraphError, ShapeError


@pytest.fixture
def x() -> Tensor:
    return Tensor([1.0, 2.0, 3.0], requires_grad=True)


# A leaf and the result of an op: for both, the tensor to hook and a scalar in which it is used twice.
PLACES = {"leaf": lambda x: x, "result": lambda x: x * 1}


@pytest.fixture(params=PLACES)
def hooked(request: pytest.FixtureRequest, x: Tensor) -> Tensor:
    return PLACES[request.param](x)


def used_twice(t: Tensor) -> Tensor:
    """A scalar whose gradient in t is 5."""
    return (t * 2).sum() + (t * 3).sum()


def test_a_hook_sees_the_final_gradient_once(hooked: Tensor, x: Tensor) -> None:
    seen: list[Any] = []
    hooked.register_hook(seen.append)
    used_twice(hooked).backward()
    assert [g.tolist() for g in seen] == [[5, 5, 5]]
    assert not seen[0].requires_grad
    assert x.grad.tolist() == [5, 5, 5]


def test_what_a_hook_returns_replaces_the_gradient(hooked: Tensor, x: Tensor) -> None:
    """One after the other, in the order of registration; what goes on is the last one's."""
    hooked.register_hook(lambda g: g + 1)
    hooked.register_hook(lambda g: g * 10)
    used_twice(hooked).backward()
    assert x.grad.tolist() == [60, 60, 60]


def test_a_removed_hook_is_silent(hooked: Tensor, x: Tensor) -> None:
    handle = hooked.register_hook(lambda g: g * 100)
    hooked.register_hook(lambda g: g + 1)
    handle.remove()
    handle.remove()
    used_twice(hooked).backward()
    assert x.grad.tolist() == [6, 6, 6]


@pytest.mark.parametrize("first", ["hook", "retain_grad"])
def test_retain_grad_keeps_what_hooks_made_of_it(first: str, x: Tensor) -> None:
    h = x * 2
    steps = {"hook": lambda: h.register_hook(lambda g: g * 10), "retain_grad": h.retain_grad}
    for name in sorted(steps, key=lambda name: name != first):
        steps[name]()
    used_twice(h).backward()
    assert h.grad.tolist() == [50, 50, 50]
    assert x.grad.tolist() == [100, 100, 100]


def test_retain_grad(x: Tensor) -> None:
    """Once is enough, and it accumulates, as on a leaf; without it a result keeps nothing."""
    h = x * 2
    h.retain_grad()
    h.retain_grad()
    y = used_twice(h)
    y.backward(retain_graph=True)
    y.backward()
    assert h.grad.tolist() == [10, 10, 10]
    assert y.grad is None
    assert not np.shares_memory(h.grad.data, x.grad.data)


def test_retain_grad_does_not_keep_the_tensor(x: Tensor) -> None:
    h = x * 2
    h.retain_grad()
    dead, y = weakref.ref(h), used_twice(h)
    gc.disable()
    del h
    assert dead() is None
    gc.enable()
    y.backward()
    assert x.grad.tolist() == [10, 10, 10]


def test_hooks_on_one_of_several_outputs() -> None:
    x = Tensor([[1.0, 5.0], [7.0, 0.0]], requires_grad=True)
    values, _ = x.max(1)
    values.register_hook(lambda g: g * 4)
    values.sum().backward()
    assert x.grad.tolist() == [[0, 4], [4, 0]]


def test_a_leafs_hook_does_not_touch_what_was_accumulated(x: Tensor) -> None:
    x.grad = Tensor([1.0, 1.0, 1.0])
    x.register_hook(lambda g: g * 10)
    used_twice(x).backward()
    assert x.grad.tolist() == [51, 51, 51]


@pytest.mark.parametrize("wrong", [Tensor([1.0]), Tensor(np.ones(3))])
def test_a_wrong_replacement_is_refused(wrong: Tensor, hooked: Tensor) -> None:
    hooked.register_hook(lambda g: wrong)
    with pytest.raises(GraphError, match=r"a hook returned .* for a gradient float32 \(3,\)"):
        used_twice(hooked).backward()


@pytest.mark.parametrize("method", [Tensor.retain_grad, lambda t: t.register_hook(print)])
def test_no_gradient_no_hook(method: Any) -> None:
    with pytest.raises(GraphError, match="does not require grad"):
        method(Tensor([1.0]))


@pytest.mark.parametrize(
    ("value", "error"), [([1.0, 1.0, 1.0], DTypeError), (Tensor([1.0]), ShapeError), (Tensor(np.ones(3)), ShapeError)]
)
def test_grad_must_fit(value: Any, error: type, x: Tensor) -> None:
    with pytest.raises(error, match="grad"):
        x.grad = value


def test_a_hook_may_remove_itself(hooked: Tensor, x: Tensor) -> None:
    """The next hook still runs."""
    seen: list[Tensor] = []
    handle = hooked.register_hook(lambda g: (seen.append(g), handle.remove())[1])
    hooked.register_hook(lambda g: g + 1)
    used_twice(hooked).backward()
    assert x.grad.tolist() == [6, 6, 6]
    assert [g.tolist() for g in seen] == [[5, 5, 5]]


def test_what_a_hook_kept_is_not_summed_into(x: Tensor) -> None:
    """Nor if the hook is gone by the time the gradient is stored."""
    kept: list[Tensor] = []
    handle = x.register_hook(lambda g: (kept.append(g), handle.remove())[1])
    for _ in range(2):
        used_twice(x).backward()
    assert x.grad.tolist() == [10, 10, 10]
    assert [g.tolist() for g in kept] == [[5, 5, 5]]


def test_each_registration_is_its_own(x: Tensor) -> None:
    """One function registered twice, around another: the last handle takes back the last."""

    def double(g: Tensor) -> Tensor:
        return g * 2

    x.register_hook(double)
    x.register_hook(lambda g: g + 1)
    x.register_hook(double).remove()
    x.sum().backward()
    assert x.grad.tolist() == [3, 3, 3]


@pytest.mark.parametrize("wrong", [1.0, np.ones(3, np.float32)])
def test_a_hook_returns_a_tensor(wrong: Any, x: Tensor) -> None:
    x.register_hook(lambda g: wrong)
    with pytest.raises(GraphError, match=f"a hook returned a {type(wrong).__name__}"):
        x.sum().backward()
