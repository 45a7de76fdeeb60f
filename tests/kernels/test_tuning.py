"""Measuring which variant is the fastest."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import minires
from minires import kernels, threads
from minires.kernels import Accepts, ConvGeometry, choice, choices, registry, use

X = np.ones((4, 6), np.float32)
GEOMETRY = ConvGeometry(stride=(2, 2))


@pytest.fixture
def tuned() -> Iterator[None]:
    minires.set_tuning(True)
    yield
    minires.set_tuning(False)


def test_the_fastest_is_measured_once_and_remembered(fake: Any, clock: Any, tuned: None) -> None:
    f = fake(a=3.0, b=2.0, c=2.5)
    assert f(X) == "b"
    assert clock.calls == [*(choice.ROUNDS * "aabbcc"), "b"]
    clock.calls.clear()
    assert (f(2 * X), f(X), f(X)) == ("b", "b", "b")
    assert clock.calls == ["b", "b", "b"]
    assert f(X[:2]) == "b"
    assert len(clock.calls) > 4
    assert [row.seconds for row in choices() if row.kernel == "fake"] == [{"a": 3.0, "b": 2.0, "c": 2.5}] * 2
    assert fake.rows() == [("b", "measured")] * 2


def test_nothing_is_measured_unless_asked(fake: Any, clock: Any) -> None:
    assert fake(a=3.0, b=2.0)(X) == "a"
    assert clock.calls == ["a"]
    assert fake.rows() == [("a", "estimated")]


def test_estimates_do_not_matter_where_times_are_known(fake: Any, tuned: None) -> None:
    f = fake(a={"seconds": 1.0, "cost": lambda *_: 9.0}, b={"seconds": 2.0, "cost": lambda *_: 1.0})
    assert f(X) == "a"
    minires.set_tuning(False)
    assert f(X) == "b"
    assert fake.rows() == [("b", "estimated")]


def test_of_equally_fast_ones_the_first_runs(fake: Any, tuned: None) -> None:
    assert fake(a=1.02, b=1.0)(X) == "a"
    assert fake("other", a=1.1, b=1.01, c=1.0)(X) == "b"


def test_a_turn_gives_the_median_of_its_later_half(fake: Any, clock: Any) -> None:
    def takes(*turns: list[float]) -> Any:
        seconds = iter([s for turn in turns for s in turn])
        return lambda: clock.spend("", next(seconds) * choice.TURN)

    long = takes([9, 3], [1, 2], [7, 1])  # of a turn each: two calls
    short = takes([0.5, 0.1, 0.1, 0.1, 0.3], [0.4, 0.3, 0.2, 0.3], [0.6, 0.3, 0.6])
    assert choice.measure({"long": long}) == pytest.approx({"long": 2 * choice.TURN})
    assert choice.measure({"short": short}) == pytest.approx({"short": 0.25 * choice.TURN})


def test_a_hopeless_candidate_has_one_turn(fake: Any, clock: Any, tuned: None) -> None:
    assert fake(slow=1.6, a=1.0, b=1.5)(X) == "a"
    assert (clock.calls.count("slow"), clock.calls.count("b")) == (2, 2 * choice.ROUNDS)


def test_an_infinite_cost_is_for_want_of_a_better_one(fake: Any, clock: Any, tuned: None) -> None:
    last = {"seconds": 1.0, "cost": lambda *_: np.inf}
    f = fake(last=last, a={"seconds": 3.0, "suits": lambda x, *_: len(x) > 2}, b=2.0)
    assert f(X) == "b"
    rows = [(row.variant, dict(row.seconds)) for row in choices() if row.kernel == "fake"]
    assert rows == [("b", {"a": 3.0, "b": 2.0})]
    clock.calls.clear()
    assert (f(X[:2]), clock.calls) == ("b", ["b"])
    assert fake("other", last=last)(X) == "last"
    assert fake("another", last=last, later=last)(X) == "last"


def test_one_candidate_is_not_measured(fake: Any, clock: Any, tuned: None) -> None:
    f = fake(a=1.0, b={"seconds": 1.0, "suits": lambda *_: False}, c={"seconds": 1.0, "precision": "fast"})
    assert (f(X), f(X.astype(np.float64))) == ("a", "portable")
    assert clock.calls == ["a", "portable"]
    assert fake.rows() == [("a", "only"), ("portable", "only")]


def test_a_forced_variant_is_not_measured(fake: Any, clock: Any, tuned: None) -> None:
    f = fake(a=2.0, b=1.0)
    with use(fake="a"):
        assert f(X) == "a"
    assert clock.calls == ["a"]


def test_a_kernel_that_works_in_place_is_not_measured(fake: Any, clock: Any, tuned: None) -> None:
    assert fake("fake_", a=2.0, b=1.0)(X) == "a"
    assert clock.calls == ["a"]


def test_precisions_are_measured_apart(fake: Any, tuned: None) -> None:
    f = fake(a=3.0, b=2.0, rough={"seconds": 1.0, "precision": "fast"})
    assert f(X) == "b"
    with kernels.precision("fast"):
        assert f(X) == "rough"
    assert f(X) == "b"


def test_float16_is_measured_as_the_float32_that_it_runs_as(clock: Any, tuned: None, fake: Any) -> None:
    f = fake(a=2.0, b=1.0)
    assert f(X.astype(np.float16)) == "b"
    assert fake.rows() == [("portable", "only"), ("b", "measured")]


def test_blocks_on_threads_do_not_measure(fake: Any, clock: Any, tuned: None) -> None:
    f, results = fake(a=2.0, b=1.0), {}

    def work(blocks: Iterator[int]) -> None:
        for block in blocks:
            results[block] = f(X)

    threads.share(work, range(4))
    assert results == dict.fromkeys(range(4), "a")
    assert clock.calls == ["a"] * 4
    assert f(X) == "b"  # nothing was remembered that keeps it from being measured now
    threads.share(work, range(4))
    assert results == dict.fromkeys(range(4), "b")


def test_a_candidate_may_call_kernels_that_are_measured(fake: Any, tuned: None) -> None:
    inner = fake("inner", a=2.0, b=1.0)
    f = fake(a=3.0)

    def fake_nested(x: Any, geometry: Any = None, bias: Any = None) -> str:
        return "nested " + inner(x)

    kernels.variant(f, Accepts("cpu"))(fake_nested)
    assert f(X) == "nested b"
    assert (fake.rows("inner"), fake.rows()) == ([("b", "measured")], [("nested", "measured")])


def test_an_error_of_a_candidate_is_the_callers(fake: Any, tuned: None) -> None:
    f = fake(a=1.0)

    def fake_broken(x: Any, geometry: Any = None, bias: Any = None) -> str:
        raise ZeroDivisionError

    kernels.variant(f, Accepts("cpu"))(fake_broken)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            f(X)
    assert fake("other", a=2.0, b=1.0)(X) == "b"


def test_arguments_that_never_come_again_are_not_measured_for_ever(
    fake: Any, clock: Any, tuned: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "MOST", 3)
    f = fake(a=2.0, b=1.0)
    assert [f(X, seed) for seed in range(5)] == ["b", "b", "b", "a", "a"]
    assert f(X, 1) == "b"


def test_threads_measure_one_at_a_time(fake: Any, tuned: None) -> None:
    f, results, running, most = fake(), [], [0], [0]
    start = threading.Barrier(4)

    def fake_slow(x: Any, geometry: Any = None, bias: Any = None) -> str:  # which runs nowhere but on trial
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.002)
        running[0] -= 1
        fake.clock.spend("slow", 1.4)
        return "slow"

    kernels.variant(f, Accepts("cpu"))(fake_slow)
    kernels.variant(f, Accepts("cpu"))(fake.implementation("fake", "b", 1.0))

    def call() -> None:
        start.wait()
        results.extend([f(X[:rows]) for rows in (1, 2, 3, 4)])

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert results == ["b"] * 16
    assert most == [1]
    assert len({row.arguments for row in choices() if row.kernel == "fake"}) == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_forked_while_a_thread_measures_can_measure(fake: Any, tuned: None) -> None:
    f, forked, measuring = fake(a=2.0, b=1.0), threading.Event(), threading.Event()
    slow = fake("slow", a=1.0)

    def slow_waiting(x: Any, geometry: Any = None, bias: Any = None) -> str:
        measuring.set()
        forked.wait(60)
        fake.clock.spend("waiting", 1)
        return "waiting"

    kernels.variant(slow, Accepts("cpu"))(slow_waiting)
    thread = threading.Thread(target=slow, args=(X,))
    thread.start()
    try:
        measuring.wait(60)
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            try:
                os._exit(0 if f(X) == "b" else 1)
            finally:
                os._exit(2)
    finally:
        forked.set()
        thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_measured_on_a_real_clock_a_real_kernel_gives_the_same_result(tuned_convolution: Any) -> None:
    want, got, how = tuned_convolution
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert how in ("only", "measured")


@pytest.fixture
def tuned_convolution(rng: np.random.Generator) -> Iterator[Any]:
    x, w = rng.standard_normal((2, 8, 8, 16), np.float32), rng.standard_normal((3, 3, 16, 16), np.float32)
    geometry = ConvGeometry(padding=(1, 1, 1, 1))
    with use("portable"):
        want = kernels.conv2d(x, w, geometry)
    minires.set_tuning(True)
    got = kernels.conv2d(x, w, geometry)
    yield want, got, registry["conv2d"].choose((x, w, geometry), {}).how
    minires.set_tuning(False)
