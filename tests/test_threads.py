"""Threads: every block once, errors and interrupts from any thread, two callers at once, and what helpers see."""

from __future__ import annotations

import contextvars
import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import minires
from minires import threads
from minires.errors import ArgumentError


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = minires.get_num_threads()
    minires.set_num_threads(2)
    yield
    minires.set_num_threads(before)


def blas_threads() -> set[int]:
    """Of NumPy's BLAS, where SciPy has brought another."""
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    beside = [pool for pool in pools if "numpy.libs" in pool["filepath"]]
    return {pool["num_threads"] for pool in beside or pools}


def who(blocks: int = 2, meet: int = 2) -> list[int]:
    """The threads that ran each of some blocks. `meet` of them wait for each other, so that as many must be there."""
    barrier, ran = threading.Barrier(meet), [0] * blocks

    def work(blocks: Iterator[int]) -> None:
        for block in blocks:
            if block < meet:
                barrier.wait(timeout=20)
            ran[block] = threading.get_ident()

    threads.share(work, range(blocks))
    return ran


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("blocks", [0, 1, 2, 3, 1000])
def test_every_block_once(count: int, blocks: int) -> None:
    minires.set_num_threads(count)
    done = np.zeros(blocks, int)

    def work(mine: Iterator[int]) -> None:
        for block in mine:
            done[block] += 1

    threads.share(work, iter(range(blocks)))
    assert (done == 1).all()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_as_many_threads_as_were_set(count: int) -> None:
    minires.set_num_threads(count)
    ran = who(20, meet=count)
    assert len(set(ran[:count])) == count
    assert len(set(ran)) == count
    assert threading.get_ident() in ran


def test_one_thread_is_the_callers() -> None:
    ran: list[int] = []
    threads.share(lambda blocks: ran.extend(threading.get_ident() for _ in blocks), range(9), most=1)
    minires.set_num_threads(1)
    assert ran + who(9, meet=1) == [threading.get_ident()] * 18


def test_at_most_so_many_threads() -> None:
    minires.set_num_threads(5)
    working: set[int] = set()

    def work(blocks: Iterator[int]) -> None:
        working.add(threading.get_ident())
        for _ in blocks:
            time.sleep(0.001)

    threads.share(work, range(50), most=2)
    assert len(working) == 2


@pytest.mark.parametrize(("count", "least", "lengths"), [(10, 1, [5, 5]), (7, 1, [3, 4]), (7, 4, [7]), (0, 1, [0])])
def test_parts(count: int, least: int, lengths: list[int]) -> None:
    parts = threads.parts(count, least)
    assert [p.stop - p.start for p in parts] == lengths
    assert [i for p in parts for i in range(p.start, p.stop)] == list(range(count))


def test_blas_is_held_to_one_thread() -> None:
    seen = []

    def work(blocks: Iterator[int]) -> None:
        seen.extend(blas_threads() for _ in blocks)

    assert blas_threads() == {2}
    threads.share(work, range(2))
    assert seen == [{1}] * 2
    assert blas_threads() == {2}
    threads.share(work, range(1))
    assert seen[2:] == [{1}]
    assert blas_threads() == {2}


def test_blas_is_held_from_whatever_thread() -> None:
    """threadpoolctl obeys the first thread that sets a number, until told otherwise. Here that is this one."""
    seen = []

    def work(blocks: Iterator[int]) -> None:
        seen.extend(blas_threads() for _ in blocks)

    for _ in range(2):
        for library in threads._blas.libraries():
            library.set_num_threads(2)
        other = threading.Thread(target=threads.share, args=(work, range(2)))
        other.start()
        other.join()
        assert blas_threads() == {2}
    assert seen == [{1}] * 4
    other = threading.Thread(target=minires.set_num_threads, args=(3,))
    other.start()
    other.join()
    assert blas_threads() == {3}


class OneForEachThread:
    """A BLAS on OpenMP: each thread has a number of its own."""

    threading_layer = "openmp"

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}

    def get_num_threads(self) -> int:
        return self.numbers.get(threading.get_ident(), 8)

    def set_num_threads(self, count: int) -> None:
        self.numbers[threading.get_ident()] = count


def test_blas_with_a_number_for_each_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    library, seen, barrier = OneForEachThread(), [], threading.Barrier(2)
    monkeypatch.setattr(threads._blas, "found", [library])
    monkeypatch.setattr(threads, "_helpers", 0)
    monkeypatch.setattr(threads, "_queue", threads.SimpleQueue())

    def work(blocks: Iterator[int]) -> None:
        for _ in blocks:
            barrier.wait(timeout=20)
            seen.append(library.get_num_threads())

    threads.share(work, range(2))
    assert seen == [1, 1]
    assert library.get_num_threads() == 8


def test_nested_calls_run_inline() -> None:
    inner: list[list[int]] = []

    def work(blocks: Iterator[int]) -> None:
        for _ in blocks:
            inner.append([threading.get_ident(), *who(3, meet=1)])

    threads.share(work, range(4))
    assert [len(set(ran)) for ran in inner] == [1] * 4
    assert not threads.is_nested()
    assert len(set(who())) == 2  # and afterwards there are helpers again


def in_caller() -> bool:
    return threading.current_thread() is threading.main_thread()


@pytest.mark.parametrize("fails", [in_caller, lambda: not in_caller(), lambda: True], ids=["caller", "helper", "both"])
def test_an_error_in_any_thread_stops_all(fails: Callable[[], bool]) -> None:
    barrier, done, running = threading.Barrier(2), [], set()

    def work(blocks: Iterator[int]) -> None:
        running.add(threading.get_ident())
        try:
            for block in blocks:
                if block < 2:
                    barrier.wait(timeout=20)
                if fails():
                    raise ValueError(f"block {block}")
                time.sleep(0.001)
                done.append(block)
        finally:
            running.discard(threading.get_ident())

    with pytest.raises(ValueError, match=r"block [01]"):
        threads.share(work, range(10_000))
    assert not running
    assert len(done) < 1000
    assert blas_threads() == {2}
    assert len(set(who())) == 2


def test_nothing_is_kept_alive() -> None:
    """Neither by a helper that waits for its next work, nor by an error's traceback. The collector is off."""
    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")
    gc.disable()
    try:
        for fails in (False, True) * 50:
            scratch, barrier = np.zeros(10), threading.Barrier(2)
            variable.set(np.zeros(3))

            def work(blocks: Iterator[int], scratch=scratch, barrier=barrier, fails=fails) -> None:
                for block in blocks:
                    barrier.wait(timeout=20)
                    scratch[block] = 1
                    if fails:
                        raise ValueError

            try:
                threads.share(work, range(2))
            except ValueError:
                assert fails
            alive = weakref.ref(scratch)
            del scratch, work
            assert alive() is None
            alive = weakref.ref(variable.get())
            variable.set(None)
            end = time.monotonic() + 20
            while alive() is not None:  # the helper is still on its way back to the queue
                assert time.monotonic() < end
                time.sleep(0)
    finally:
        gc.enable()


@pytest.mark.parametrize("again", [False, True])
def test_an_interrupt_waits_for_the_helpers(again: bool) -> None:
    """Ctrl-C in the caller's block, and once more while it waits."""
    barrier, at_work, ended = threading.Barrier(2), threading.Event(), []

    def work(blocks: Iterator[int]) -> None:
        for _ in blocks:
            barrier.wait(timeout=20)
            if in_caller():
                assert at_work.wait(20)
                signal.raise_signal(signal.SIGINT)
            at_work.set()
            time.sleep(0.1)
            if again:
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            ended.append(threading.get_ident())

    with pytest.raises(KeyboardInterrupt):
        threads.share(work, range(1000))
    assert len(ended) == 1
    assert ended[0] != threading.get_ident()
    assert blas_threads() == {2}
    assert len(set(who())) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # where it rings in a callback
def test_interrupts_at_any_moment_leave_no_trace() -> None:
    """A signal lands between any two lines of `share`. One that hits within BLAS's is healed by the next call."""

    class Alarm(Exception):
        pass

    def ring(*_: object) -> None:
        raise Alarm

    def work(blocks: Iterator[int]) -> None:
        for _ in blocks:
            pass

    who()  # the helpers have started: what an interrupt does to a thread that starts is Python's business
    before, rng, rang = signal.signal(signal.SIGALRM, ring), np.random.default_rng(0), 0
    try:
        for delay in rng.uniform(5e-6, 2e-4, 300):
            try:
                signal.setitimer(signal.ITIMER_REAL, delay, 0.1)  # again, should it ring where Python swallows errors
                while True:
                    threads.share(work, range(2))
            except Alarm:
                signal.setitimer(signal.ITIMER_REAL, 0)
                rang += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rang == 300
    assert len(set(who())) == 2
    assert blas_threads() == {2}


def test_two_callers_at_once_and_changes_meanwhile() -> None:
    ends, errors = time.monotonic() + 1, []

    def call() -> None:
        while time.monotonic() < ends:
            done = np.zeros(50, int)

            def work(blocks: Iterator[int], done=done) -> None:
                for block in blocks:
                    done[block] += np.ones((20, 20)).dot(np.ones((20, 20)))[0, 0] == 20

            threads.share(work, range(50))
            if not (done == 1).all():
                errors.append(done)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for thread in callers:
        thread.start()
    while time.monotonic() < ends:
        for count in (1, 3, 2):
            minires.set_num_threads(count)
            time.sleep(0.001)
    for thread in callers:
        thread.join()
    assert errors == []
    assert blas_threads() == {2}
    assert len(set(who())) == 2


def test_a_busy_helper_is_not_waited_for() -> None:
    helper_is_busy, over, main = threading.Event(), threading.Event(), threading.get_ident()

    def long(blocks: Iterator[int]) -> None:
        for _ in blocks:
            if threading.current_thread().name == "minires-helper":
                helper_is_busy.set()
            over.wait(20)

    minires.set_num_threads(2)
    other = threading.Thread(target=threads.share, args=(long, range(2)))
    other.start()
    try:
        assert helper_is_busy.wait(20)
        busy = [t for t in threading.enumerate() if t.name == "minires-helper"]
        if len(busy) == 1:  # else another test has left more
            assert who(9, meet=1) == [main] * 9
    finally:
        over.set()
        other.join()


def test_without_helpers_the_caller_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system starts no more threads."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(threads, "_helpers", 0)
    monkeypatch.setattr(threads, "_queue", threads.SimpleQueue())
    assert set(who(9, meet=1)) == {threading.get_ident()}
    assert threads._queue.empty()


def test_helpers_see_the_callers_context() -> None:
    """NumPy's error state too: here warnings are errors."""
    variable, seen = contextvars.ContextVar("variable", default="outside"), []
    large, result = np.full(2, 1e38, np.float32), np.zeros(2, np.float32)
    barrier = threading.Barrier(2)

    def work(blocks: Iterator[int]) -> None:
        for block in blocks:
            barrier.wait(timeout=20)
            result[block : block + 1] = large[block : block + 1] * large[block : block + 1]
            seen.append(variable.get())
            if not in_caller():
                variable.set("a helper's own")

    for name in ("one", "other"):
        variable.set(name)
        with np.errstate(all="ignore"):
            threads.share(work, range(2))
        assert np.isinf(result).all()
    assert seen == ["one", "one", "other", "other"]
    assert variable.get() == "other"
    with pytest.raises(RuntimeWarning, match="overflow"):
        threads.share(work, range(2))


@pytest.mark.parametrize("value", [0, -1, 1.0, "2", True, None])
def test_set_num_threads_refuses(value: Any) -> None:
    with pytest.raises(ArgumentError, match=r"set_num_threads: .* must be an int of at least 1"):
        minires.set_num_threads(value)
    assert minires.get_num_threads() == 2
