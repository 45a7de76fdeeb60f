"""The threads that kernels share their blocks among: how many, and that nobody else takes more.

NumPy gives up the interpreter's lock inside its loops and matrix products, so plain threads run them side by side.
A kernel cuts its work into blocks and calls `share`. While any block runs, BLAS is held to one thread: the blocks are
the parallel work, and a second layer of threads below would only fight over the same cores.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .errors import ArgumentError

T = TypeVar("T")


def available() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _from_environment() -> int:
    value = os.environ.get("MINIRES_NUM_THREADS", "")
    if not value:
        return available()
    if not (value.isdecimal() and int(value)):
        raise ArgumentError(f"MINIRES_NUM_THREADS must be a number of at least 1, not {value!r}")
    return int(value)


class _Blas:
    """NumPy's BLAS, whose number of threads is one for the whole process: whoever is last to leave sets it back."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders = 0
        self.libraries: list[tuple[object, int]] | None = None

    def find(self) -> list[object]:
        """The BLAS libraries that are loaded. Looking for them takes milliseconds: it is done once."""
        from threadpoolctl import ThreadpoolController

        return list(ThreadpoolController().select(user_api="blas").lib_controllers)

    def hold(self) -> None:
        with self.lock:
            if self.libraries is None:
                self.libraries = [(library, 1) for library in self.find()]
            if self.holders == 0:
                self.libraries = [(library, library.get_num_threads()) for library, _ in self.libraries]  # type: ignore[attr-defined]
                for library, _ in self.libraries:
                    library.set_num_threads(1)  # type: ignore[attr-defined]
            self.holders += 1

    def release(self) -> None:
        with self.lock:
            self.holders -= 1
            if self.holders == 0:
                for library, threads in self.libraries or ():
                    library.set_num_threads(threads)  # type: ignore[attr-defined]


_blas = _Blas()
_count = _from_environment()
_executor: ThreadPoolExecutor | None = None
_lock = threading.Lock()
_inside = threading.local()


def get_num_threads() -> int:
    """How many threads kernels use."""
    return _count


def set_num_threads(count: int) -> None:
    """Use `count` threads from now on, in the whole process, for kernels and for BLAS.

    Starts as MINIRES_NUM_THREADS, else as the number of cores. Raises ArgumentError for less than 1.
    """
    global _count, _executor
    if not isinstance(count, int) or count < 1:
        raise ArgumentError(f"set_num_threads: {count!r} must be an int of at least 1")
    with _lock:
        _count, old, _executor = count, _executor, None
    if old is not None:
        old.shutdown(wait=False)


def _helpers() -> ThreadPoolExecutor:
    """The threads that help the caller: one fewer than `get_num_threads`, since it works too."""
    global _executor
    with _lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(max(1, _count - 1), thread_name_prefix="minires")
        return _executor


class _Shared(Iterator[T]):
    """An iterator that several threads draw from."""

    def __init__(self, items: Iterable[T]) -> None:
        self.items, self.lock = iter(items), threading.Lock()

    def __next__(self) -> T:
        with self.lock:
            return next(self.items)


@contextlib.contextmanager
def _one_level() -> Iterator[None]:
    """This thread runs blocks: what they call in turn runs in it alone."""
    _inside.active = True
    try:
        yield
    finally:
        _inside.active = False


def share(work: Callable[[Iterator[T]], None], items: Iterable[T]) -> None:
    """Run `work(blocks)` in every thread at once, each drawing its blocks from `items` until none is left.

    `work` makes its scratch memory, then loops. Which thread gets which block is not fixed: results go to places of
    their own, and sums are made from them in the blocks' order. The first error is raised, after all have stopped.
    """
    items = list(items)
    if getattr(_inside, "active", False):
        work(iter(items))
        return
    workers = min(_count, len(items))
    _blas.hold()
    try:
        if workers <= 1:
            with _one_level():
                work(iter(items))
            return
        shared = _Shared(items)

        def run() -> None:
            with _one_level():
                work(shared)

        futures = [_helpers().submit(run) for _ in range(workers - 1)]
        try:
            run()
        finally:
            for future in futures:  # a helper that has not begun (busy for another caller) is not waited for
                if not future.cancel():
                    future.result()
    finally:
        _blas.release()


def parts(count: int, least: int = 1) -> list[slice]:
    """Cut range(count) into equal contiguous slices, one for each thread, of at least `least`."""
    number = max(1, min(_count, count // max(1, least)))
    bounds = [count * i // number for i in range(number + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(bounds)]


def _after_fork() -> None:
    """A forked child has none of its parent's threads."""
    global _executor, _lock, _blas
    _executor, _lock, _blas = None, threading.Lock(), _Blas()
    _inside.active = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
