"""Convolution on threads: the same bits again and again, whoever does which block, and beside another caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import minires
from minires import threads
from minires.kernels import ConvGeometry
from tests.helpers import assert_f32
from tests.kernels.convolutions import CASES, Call, Convolution, modules, small_blocks

# Those above, and some of which each thread gets several blocks as they are.
LARGE = {
    "3x3, 64 channels": Convolution((32, 16, 16, 64), (3, 3, 64, 64), ConvGeometry(padding=(1, 1, 1, 1)), bias=True),
    "3x3/2": Convolution((16, 32, 32, 24), (3, 3, 24, 40), ConvGeometry((2, 2), (1, 1, 1, 1)), bias=True),
    "1x1": Convolution((16, 28, 28, 64), (1, 1, 64, 96), bias=True),
    "depthwise": Convolution((24, 56, 56, 32), (3, 3, 1, 32), ConvGeometry((1, 1), (1, 1, 1, 1), groups=32)),
}
ALL = CASES | LARGE


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = minires.get_num_threads()
    minires.set_num_threads(2)
    yield
    minires.set_num_threads(before)


def calls(case: str) -> list[Call]:
    return list(ALL[case].calls(ALL[case].draw("float32")))


def may_use_blas_threads(call: Call) -> bool:
    """These leave one large product to BLAS's threads, if nobody holds them.

    Products of one thread and of several round otherwise, so these bits depend on who else computes.
    """
    return call.variant.name in ("blocked", "small_im2col") and not any(getattr(a, "groups", 1) > 1 for a in call.args)


@pytest.mark.parametrize("case", LARGE)
def test_the_same_bits_every_time(case: str) -> None:
    for call in calls(case):
        first = call()
        for _ in range(19):
            np.testing.assert_array_equal(call(), first, err_msg=call.name)


SCHEDULES: dict[str, Callable[[list[Any]], list[list[Any]]]] = {
    "one thread does all": lambda items: [items],
    "backwards": lambda items: [items[::-1]],
    "the second is through before the first begins": lambda items: [items[1::2], items[::2]],
    "a thread for each": lambda items: [[item] for item in items],
}


@pytest.mark.parametrize("case", ALL)
def test_whichever_thread_does_which_block(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What threads may happen to do, done on purpose: results do not depend on it by a bit."""
    if case in CASES:
        small_blocks(monkeypatch)
    wants = [(call, call()) for call in calls(case)]
    for name, schedule in SCHEDULES.items():

        def share(
            work: Callable[[Iterator[Any]], None], items: Any, most: int | None = None, schedule: Any = schedule
        ) -> None:
            with threads._blas:
                for own in schedule(list(items)):
                    threads.alone(work, iter(own))

        for module in modules():
            if hasattr(module, "share"):
                monkeypatch.setattr(module, "share", share)
        for call, want in wants:
            np.testing.assert_array_equal(call(), want, err_msg=f"{call.name}: {name}")


@pytest.mark.parametrize("case", LARGE)
def test_other_numbers_of_threads(case: str) -> None:
    """Sums may be cut at other places: equal within the stated error."""
    convolution = ALL[case]
    arrays = convolution.draw("float32")
    for count in 1, 3:
        minires.set_num_threads(count)
        for call in convolution.calls(arrays):
            assert_f32(call(), convolution.right(call.kernel, arrays), call.stated)


@pytest.mark.parametrize("case", LARGE)
def test_two_callers_at_once(case: str) -> None:
    """Two of Python's threads, one of which finds the helper busy, get the bits that each gets alone."""
    given = [list(ALL[case].calls(ALL[case].draw("float32", seed=seed))) for seed in (0, 1)]
    alone = [[call() for call in mine] for mine in given]
    barrier, wrong = threading.Barrier(2), []

    def run(who: int) -> None:
        barrier.wait(timeout=20)
        for _ in range(3):
            for call, want in zip(given[who], alone[who], strict=True):
                if not np.array_equal(call(), want) and not may_use_blas_threads(call):
                    wrong.append(call.name)

    callers = [threading.Thread(target=run, args=(who,)) for who in (0, 1)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@pytest.mark.parametrize("case", ALL)
def test_while_somebody_else_holds_blas(case: str) -> None:
    convolution = ALL[case]
    arrays = convolution.draw("float32")
    for call in convolution.calls(arrays):
        want = call()
        with threads._blas:
            got = call()
        if may_use_blas_threads(call):
            assert_f32(got, convolution.right(call.kernel, arrays), call.stated)
        else:
            np.testing.assert_array_equal(got, want, err_msg=call.name)
