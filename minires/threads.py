"""The threads that kernels share their blocks among: how many, and that nobody else takes more.

NumPy gives up the interpreter's lock inside its loops and matrix products, so plain threads run them side by side.
A kernel cuts its work into blocks and calls `share`. While it runs, BLAS is held to one thread: the blocks are the
parallel work, and a second layer of threads below would only fight over the same cores. That holds for a single block,
too: OpenBLAS's threads spin for milliseconds after a product, on the cores that the next blocks want.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, copy_context
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from .errors import ArgumentError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def available() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Blas:
    """NumPy's BLAS. Its number of threads is one for the whole process: whoever is last to leave sets it back."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders: set[int] = set()  # threads; one that Ctrl-C hits within these lines is back at its next call
        self.before: list[tuple[Any, int]] = []  # libraries that had other numbers of threads, and these
        self.found: list[Any] | None = None

    def libraries(self) -> list[Any]:
        """NumPy's, as threadpoolctl knows it. Looking for it takes milliseconds: it is done once.

        SciPy brings one of its own, which no kernel calls. Where none lies beside NumPy, all that are loaded count.
        """
        if self.found is None:
            from threadpoolctl import ThreadpoolController

            loaded = ThreadpoolController().select(user_api="blas").lib_controllers
            beside = [v for v in loaded if any(part.startswith("numpy") for part in Path(v.filepath).parts[-3:])]
            self.found = beside or list(loaded)
        return self.found

    def __enter__(self) -> None:
        with self.lock:
            first = not self.holders
            self.holders.add(threading.get_ident())
            if first:
                numbers = [(library, library.get_num_threads()) for library in self.libraries()]
                self.before = [(library, threads) for library, threads in numbers if threads != 1]
                for library, _ in self.before:
                    self._set(library, 1)

    def __exit__(self, *exception: object) -> None:
        with self.lock:
            if self.holders == {threading.get_ident()}:
                self._set_back()
            self.holders.discard(threading.get_ident())

    def _set_back(self) -> None:
        for library, threads in self.before:
            self._set(library, threads)

    def _set(self, library: Any, threads: int) -> None:
        """From whatever thread: threadpoolctl 3.8 and later obey only the first that sets a number, until told to."""
        library.set_num_threads(threads)
        if library.get_num_threads() != threads and hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread(force=True)
            library.set_num_threads(threads)

    def enter_helper(self) -> None:
        """A BLAS on OpenMP has a number for each thread: a helper's is one for good."""
        for library in self.libraries():
            if getattr(library, "threading_layer", "") == "openmp":
                self._set(library, 1)

    def set_num_threads(self, count: int) -> None:
        with self.lock:
            self.before = [(library, count) for library in self.libraries()]
            if not self.holders:
                self._set_back()

    def after_fork(self) -> None:
        """Whoever held it in the parent is not here to leave."""
        self.lock = threading.Lock()
        if self.holders:
            self._set_back()
            self.holders.clear()


_blas = _Blas()
_count: int | None = None  # until somebody asks
_inside = threading.local()


def numpy_blas() -> list[Any]:
    """threadpoolctl's controllers of the BLAS that NumPy's matrix products run on."""
    return _blas.libraries()


def get_num_threads() -> int:
    """How many threads kernels use: what was set, else MINIRES_NUM_THREADS, else the number of cores.

    Raises ArgumentError where MINIRES_NUM_THREADS is no number of at least 1.
    """
    global _count
    if _count is None:
        value = os.environ.get("MINIRES_NUM_THREADS", "")
        if value and not (value.isascii() and value.isdecimal() and int(value)):
            raise ArgumentError(f"MINIRES_NUM_THREADS must be a whole number of at least 1, not {value!r}")
        _count = int(value) if value else available()
    return _count


def set_num_threads(count: int) -> None:
    """Use `count` threads from now on, in the whole process, for kernels and for BLAS.

    Raises ArgumentError for less than 1.
    """
    global _count
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ArgumentError(f"set_num_threads: {count!r} must be an int of at least 1")
    _blas.set_num_threads(count)
    _count = count


def is_nested() -> bool:
    """Whether this is a block that `share` runs, or another thread that gets no helpers."""
    return getattr(_inside, "active", False)


def alone(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `function`; what it shares runs in this thread alone. For threads that work beside the kernels'."""
    before, _inside.active = is_nested(), True
    try:
        return function(*args, **kwargs)
    finally:
        _inside.active = before


class _Call(Iterator[T]):
    """One call of `share`: the blocks that its threads draw from, and how many helpers are at work on them."""

    def __init__(self, work: Callable[[Iterator[T]], None], items: list[T]) -> None:
        self.lock = threading.Lock()
        self.work: Callable[[Iterator[T]], None] | None = work  # None: too late to help
        self.blocks = iter(items)
        self.helpers = 0
        self.error: BaseException | None = None
        self.last_left = threading.Lock()
        self.last_left.acquire()

    def __next__(self) -> T:
        with self.lock:
            return next(self.blocks)

    def help(self) -> None:
        with self.lock:
            work = self.work
            if work is None:
                return
            self.helpers += 1
        try:
            work(self)
        except BaseException as error:
            with self.lock:
                self.error, self.blocks = self.error or error, iter(())
        del work  # so that what it holds is the caller's alone once this has left
        with self.lock:
            self.helpers -= 1
            if self.work is None and self.helpers == 0:
                self.last_left.release()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        """Hand out nothing more, and wait for the helpers: they end with their block."""
        with self.lock:
            self.work, self.blocks = None, iter(())
        interrupt = None
        while self.helpers:
            try:
                self.last_left.acquire()
            except BaseException as error:  # a second Ctrl-C: they would go on writing behind the caller's back
                interrupt = error
        if interrupt is not None:
            raise interrupt


_queue: SimpleQueue[tuple[Context, _Call[Any]]] = SimpleQueue()
_helpers = 0
_starting = threading.Lock()


def _help(queue: SimpleQueue[tuple[Context, _Call[Any]]]) -> None:
    _inside.active = True
    _blas.enter_helper()
    while True:
        context, call = queue.get()
        context.run(call.help)
        del context, call  # the next may be long in coming


def _have_helpers(wanted: int) -> int:
    """Start helpers until there are as many as wanted, or as the system allows. They wait in the queue for ever."""
    global _helpers
    if _helpers < wanted:
        with _starting, contextlib.suppress(RuntimeError):  # the system's limit, or the interpreter ends
            while _helpers < wanted:
                threading.Thread(target=_help, args=(_queue,), name="minires-helper", daemon=True).start()
                _helpers += 1
    return min(_helpers, wanted)


def share(work: Callable[[Iterator[T]], None], items: Iterable[T], most: int | None = None) -> None:
    """Run `work(blocks)` in every thread at once, each drawing its blocks from `items` until none is left.

    `work` makes its scratch memory, then loops. Which thread gets which block is not fixed: results go to places of
    their own, and sums are made from them in the blocks' order. Helpers see the caller's context variables, of which
    NumPy's error state is one. An error in one thread stops all, and is raised when they have; if a helper is busy for
    somebody else, or fewer could be started, the caller does more of the blocks itself. At `most` so many threads take
    part.
    """
    items = list(items)
    if is_nested():
        work(iter(items))
        return
    wanted = min(get_num_threads(), len(items), most or len(items)) - 1
    if wanted < 1:
        with _blas:
            alone(work, iter(items))
        return
    call = _Call(work, items)
    try:
        with _blas, call:
            for _ in range(_have_helpers(wanted)):
                _queue.put((copy_context(), call))
            alone(work, call)
        if call.error is not None:
            raise call.error
    finally:
        call.error = None  # its traceback holds the call, which would so keep itself


def parts(count: int, least: int = 1) -> list[slice]:
    """Cut range(count) into equal contiguous slices, one for each thread, of at least `least`."""
    number = max(1, min(get_num_threads(), count // max(1, least)))
    bounds = [count * i // number for i in range(number + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(bounds)]


def _after_fork() -> None:
    """A forked child has none of its parent's threads, and its locks as they were just then."""
    global _queue, _helpers, _starting
    _queue, _helpers, _starting = SimpleQueue(), 0, threading.Lock()
    _blas.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
if os.environ.get("MINIRES_NUM_THREADS"):
    with contextlib.suppress(ArgumentError):  # told where the number is first needed: a script can show it in one line
        set_num_threads(get_num_threads())
