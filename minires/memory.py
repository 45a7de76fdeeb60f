"""Memory for large NumPy arrays that is used again: fresh pages cost more than the work on them.

The system hands out new memory page by page, each zeroed at its first touch; a training step that maps all its arrays
anew spends half its time there. Here a block goes back to a free list when the last array that sees it dies.

How that is known: NumPy keeps the `Block` alive as the base of the array made from its `__array_interface__`, and each
view of that array, and each view of a view, keeps that array. So `Block.__del__` runs when nobody can see the memory.

How much is held: a block serves only arrays of its size (in steps of 64 KB), so steps of one shape find all they need.
Two rules let the rest go. Before a new block is mapped, those that lay free longest go back to the system until no more
than 1.5 times the most that was ever in use is held: batches of many sizes share that room. And a block goes back that
lay free while 1024 times all that is held was handed out: its shape belongs to something that is over.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LEAST = 1 << 18  # bytes: smaller arrays come from NumPy, whose allocator keeps small memory itself
STEP = 1 << 16  # sizes are rounded up to multiples of this
LINE = 64  # bytes: arrays begin on a cache line, where AVX-512 loads cost up to a third less
SLACK = 1.5
PATIENCE = 1024


class MemoryStats(NamedTuple):
    """Bytes: seen by arrays, held in all, the most ever held; and how many blocks were ever mapped anew."""

    in_use: int
    held: int
    peak: int
    mapped: int


class _Pool:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.returned: deque[np.ndarray] = deque()  # by arrays that died, in any thread, at any moment: even in `take`
        self.free: dict[int, list[tuple[int, np.ndarray]]] = {}  # size -> (when it came back, memory), oldest first
        self.clock = self.next_look = 0  # bytes handed out, and at how many to look for what lies free too long
        self.in_use = self.most_in_use = self.held = self.peak = self.mapped = 0

    def take(self, nbytes: int) -> np.ndarray:
        size = -(-nbytes // STEP) * STEP
        with self.lock:
            self.sort_in()
            self.clock += size
            if self.clock >= self.next_look:
                self.let_go(0)
                self.next_look = self.clock + self.held
            if size in self.free:
                memory = self.free[size].pop()[1]
                if not self.free[size]:
                    del self.free[size]
            else:
                memory = self.map(size)
            self.in_use += size
            self.most_in_use = max(self.most_in_use, self.in_use)
            return memory

    def map(self, size: int) -> np.ndarray:
        self.let_go(size)
        try:
            memory = np.empty(size + LINE, np.uint8)
        except MemoryError:
            self.release()
            memory = np.empty(size + LINE, np.uint8)
        self.mapped += 1
        self.held += size
        self.peak = max(self.peak, self.held)
        start = -memory.ctypes.data % LINE
        return memory[start : start + size]

    def sort_in(self) -> None:
        while self.returned:
            memory = self.returned.popleft()
            self.in_use -= memory.nbytes
            self.free.setdefault(memory.nbytes, []).append((self.clock, memory))

    def let_go(self, needed: int) -> None:
        """Give back what the two rules tell, for `needed` bytes more."""
        most = SLACK * max(self.most_in_use, self.in_use + needed)
        while self.free:
            oldest = min(self.free.values(), key=lambda blocks: blocks[0][0])
            if self.held + needed <= most and self.clock - oldest[0][0] <= PATIENCE * self.held:
                return
            size = oldest.pop(0)[1].nbytes
            self.held -= size
            if not oldest:
                del self.free[size]

    def release(self) -> None:
        with self.lock:
            self.sort_in()
            self.held -= sum(size * len(blocks) for size, blocks in self.free.items())
            self.free.clear()

    def stats(self) -> MemoryStats:
        with self.lock:
            self.sort_in()
            return MemoryStats(self.in_use, self.held, self.peak, self.mapped)


_pool = _Pool()


class Block:
    """Memory of the pool, seen through one array; see the module."""

    __slots__ = ("__array_interface__", "memory")

    def __init__(self, memory: np.ndarray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.memory = memory
        self.__array_interface__ = {
            "version": 3, "shape": shape, "typestr": dtype.str, "data": (memory.ctypes.data, False),
        }  # fmt: skip

    def __del__(self, give_back: Any = _pool.returned.append) -> None:  # at exit the module's names may be gone
        give_back(self.memory)


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Like np.empty, from memory that was used before if it is large."""
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < LEAST:
        return np.empty(shape, dtype)
    return np.asarray(Block(_pool.take(nbytes), tuple(map(int, shape)), dtype))


def empty_like(x: np.ndarray) -> np.ndarray:
    """A C-contiguous array of x's shape and dtype."""
    return empty(x.shape, x.dtype)


def copy(x: Any) -> Any:
    """A C-contiguous copy of an array; one that is not NumPy's is copied by its own library."""
    if not isinstance(x, np.ndarray):
        return x.copy()
    y = empty_like(x)
    np.copyto(y, x)
    return y


def is_whole(array: Any) -> bool:
    """Whether an array is all of its memory, and no view of another array."""
    return array.base is None or isinstance(array.base, Block)


def stats() -> MemoryStats:
    """What the pool holds now."""
    return _pool.stats()


def release() -> None:
    """Give all memory that no array sees back to the system."""
    _pool.release()


def peak_rss() -> int | None:
    """The most bytes of memory that this process ever had, or None where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage begins with what the process had that started this one
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _after_fork() -> None:
    """Another thread of the parent may have held the lock, and no such thread exists in the child."""
    _pool.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
