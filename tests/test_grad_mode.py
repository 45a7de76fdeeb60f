"""What is recorded, and when: no_grad, enable_grad, and threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import minires
from minires import Tensor, enable_grad, is_grad_enabled, no_grad
from minires.errors import GraphError


def test_no_grad_records_nothing() -> None:
    x = Tensor([1.0], requires_grad=True)
    with no_grad():
        y = x * 2
    assert not y.requires_grad
    assert y.node is None
    assert (x * 2).requires_grad


def test_what_is_not_recorded_saves_nothing() -> None:
    function = minires.ops.elementwise.Exp()
    with no_grad():
        function(Tensor([1.0], requires_grad=True))
    assert function.saved == ()


def test_nested() -> None:
    seen = [is_grad_enabled()]
    with no_grad():
        seen.append(is_grad_enabled())
        with enable_grad():
            seen.append(is_grad_enabled())
            with no_grad():
                seen.append(is_grad_enabled())
            seen.append(is_grad_enabled())
        seen.append(is_grad_enabled())
    seen.append(is_grad_enabled())
    assert seen == [True, False, True, False, True, False, True]


def test_one_manager_entered_twice() -> None:
    mode = no_grad()
    with mode:
        with mode:
            assert not is_grad_enabled()
        assert not is_grad_enabled()
    assert is_grad_enabled()


def test_an_exception_restores_the_mode() -> None:
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert is_grad_enabled()


@pytest.mark.parametrize(("mode", "outside", "inside"), [(no_grad, enable_grad, False), (enable_grad, no_grad, True)])
def test_decorator(mode: Any, outside: Any, inside: bool) -> None:
    @mode()
    def depth(n: int) -> list[bool]:
        """Recurses."""
        return [is_grad_enabled(), *(depth(n - 1) if n else [])]

    with outside():
        assert depth(2) == [inside] * 3
        assert is_grad_enabled() is not inside
    assert depth.__name__ == "depth"
    assert depth.__doc__ == "Recurses."


def in_threads(work: Callable[[], Any], count: int = 8) -> list[Any]:
    """`work`, begun at once by `count` threads."""
    start = threading.Barrier(count)
    with ThreadPoolExecutor(count) as pool:
        return [f.result() for f in [pool.submit(lambda: (start.wait(), work())[1]) for _ in range(count)]]


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads that take turns as often as Python lets them."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_threads_start_with_recording_on() -> None:
    with no_grad():
        assert in_threads(is_grad_enabled) == [True] * 8
    assert is_grad_enabled()


@pytest.mark.usefixtures("eager_threads")
def test_threads_do_not_see_each_others_mode() -> None:
    @no_grad()
    def disabled() -> bool:
        return is_grad_enabled()

    def work() -> int:
        wrong = 0
        for _ in range(200):
            with no_grad():
                wrong += is_grad_enabled()
                with enable_grad():
                    wrong += not is_grad_enabled()
                wrong += is_grad_enabled()
            wrong += disabled() + (not is_grad_enabled())
        return wrong

    assert in_threads(work) == [0] * 8


@pytest.mark.usefixtures("eager_threads")
def test_threads_accumulate_into_one_leaf() -> None:
    """8 threads x 500 backwards of gradient 1."""
    w = Tensor(np.zeros(1000), requires_grad=True)

    def work() -> None:
        for _ in range(500):
            (w * 1).sum().backward()

    in_threads(work)
    np.testing.assert_array_equal(w.grad.data, 4000)


@pytest.mark.usefixtures("eager_threads")
def test_threads_make_a_leafs_first_gradient_together() -> None:
    """Where each found none and put its own there, only the last would stay."""
    for _ in range(100):
        w = Tensor(np.zeros(1000), requires_grad=True)
        y = (w * 1).sum()
        in_threads(lambda y=y: y.backward(retain_graph=True))
        np.testing.assert_array_equal(w.grad.data, 8)


@pytest.mark.usefixtures("eager_threads")
def test_threads_share_a_graph() -> None:
    """Each sends its own gradients back; what a leaf or a kept result gets is the sum of all."""
    w = Tensor(np.ones(1000), requires_grad=True)
    h = w * 2
    h.retain_grad()
    trunk = h.relu() + h

    def work() -> None:
        for _ in range(200):
            (trunk * 1).sum().backward(retain_graph=True)

    in_threads(work)
    np.testing.assert_array_equal(h.grad.data, 2 * 1600)
    np.testing.assert_array_equal(w.grad.data, 4 * 1600)


@pytest.mark.parametrize("saves", [True, False])
def test_a_graph_freed_while_it_is_walked(saves: bool) -> None:
    """As by another thread's backward: here by a hook's, after the node was checked and before it runs."""
    x = Tensor([3.0], requires_grad=True)
    h = x.exp() if saves else x.reshape(1)
    others = [h * 5]

    def walk_first(_: Tensor) -> None:
        if others:
            others.pop().backward()

    h.register_hook(walk_first)
    if saves:
        with pytest.raises(GraphError, match=r"Exp\(\) a second time: its saved arrays were freed by the first"):
            h.backward()
    else:
        h.backward()
        assert x.grad.item() == 6


def test_decorator_without_parentheses() -> None:
    @no_grad
    def recorded() -> bool:
        return is_grad_enabled()

    assert not recorded()
    assert is_grad_enabled()


def test_a_decorated_generator_has_the_mode_to_itself() -> None:
    @no_grad()
    def count(n: int) -> Generator[tuple[bool, Any], Any, str]:
        sent = None
        for _ in range(n):
            sent = yield is_grad_enabled(), sent
        return "done"

    counting = count(2)
    assert next(counting) == (False, None)
    assert is_grad_enabled()
    assert counting.send("more") == (False, "more")
    with pytest.raises(StopIteration, match="done"):
        next(counting)
    assert is_grad_enabled()
