"""Memory for large NumPy arrays that is used again: fresh pages cost more than the work on them.

The system hands out new memory page by page, each zeroed at its first touch; a training step that maps all its arrays
anew spends half its time there. Here arrays are cut out of regions of 64 MB that are kept. When the last array that
sees a piece dies, the piece becomes a hole again, joined with the holes beside it, for arrays of whatever size: a
smaller last batch or an evaluation lives where the training step does, and little more is held than was ever in use.

How it is known that nobody sees a piece: NumPy keeps the `Block` alive as the base of the array made from its
`__array_interface__`, and each view of that array, and each view of a view, keeps that array. So `Block.__del__` runs
when nobody can see the memory.

An array goes into the first region that has room, so that the last ones empty when less is needed. One that lay empty
while 256 times all that is held was handed out, some 50 training steps, goes back to the system.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from bisect import bisect
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")

LEAST = 1 << 18  # bytes: arrays of no more come from NumPy, whose allocator keeps small memory itself
PAGE = 1 << 12  # arrays begin on a page, and so on a cache line: AVX-512 loads across two cost up to a third more
REGION = 1 << 26  # glibc maps what is larger than 32 MB by itself, and so gives all of it back
PATIENCE = 256


class MemoryStats(NamedTuple):
    """Bytes: seen by arrays, in all regions, the most ever in regions; and how many regions were ever mapped."""

    in_use: int
    held: int
    peak: int
    mapped: int


class _Region:
    """Memory of the system's, and its holes."""

    def __init__(self, size: int) -> None:
        self.memory = np.empty(size + PAGE, np.uint8)
        self.address = -(-self.memory.ctypes.data // PAGE) * PAGE
        self.size = size
        self.holes = [(0, size)]  # (start, size), by start
        self.empty_since = 0  # on the pool's clock

    def take(self, size: int) -> int | None:
        """Where `size` bytes begin, in the smallest hole that is large enough; None if there is none."""
        best = None
        for hole in self.holes:
            if hole[1] >= size and (best is None or hole[1] < best[1]):
                best = hole
        if best is None:
            return None
        index, (start, length) = self.holes.index(best), best
        self.holes[index : index + 1] = [(start + size, length - size)] if length > size else []
        return start

    def give_back(self, start: int, size: int) -> None:
        index = bisect(self.holes, (start, 0))
        if index < len(self.holes) and self.holes[index][0] == start + size:
            size += self.holes.pop(index)[1]
        if index and sum(self.holes[index - 1]) == start:
            index -= 1
            before = self.holes.pop(index)
            start, size = before[0], before[1] + size
        self.holes.insert(index, (start, size))

    def is_empty(self) -> bool:
        return self.holes == [(0, self.size)]


class _Pool:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.inside = False  # whether the lock's holder is amid these lines
        self.regions: list[_Region] = []
        self.died: deque[tuple[_Region, int, int]] = deque()  # appended to in any thread, at any moment: even in `take`
        self.clock = self.next_look = 0  # bytes handed out, and at how many to look for empty regions
        self.in_use = self.held = self.peak = self.mapped = 0

    def do(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """Call a function below, one thread at a time.

        Not for who comes while this very thread is at it, a finaliser or a signal's handler: that one gets None.
        """
        with self.lock:
            if self.inside:
                return None
            self.inside = True
            try:
                return function(*arguments)
            finally:
                self.inside = False

    def take(self, nbytes: int) -> tuple[_Region, int, int]:
        """A region, where in it a piece of at least `nbytes` begins, and its size."""
        size = -(-nbytes // PAGE) * PAGE
        self.collect()
        self.clock += size
        if self.clock >= self.next_look:
            self.drop_empty(PATIENCE * self.held)
            self.next_look = self.clock + self.held
        for region in self.regions:
            start = region.take(size)
            if start is not None:
                break
        else:
            region = self.map(max(size, REGION))
            start = region.take(size) or 0
        self.in_use += size
        return region, start, size

    def map(self, size: int) -> _Region:
        try:
            region = _Region(size)
        except MemoryError:
            self.drop_empty(0)
            region = _Region(size)
        self.regions.append(region)
        self.mapped += 1
        self.held += size
        self.peak = max(self.peak, self.held)
        return region

    def collect(self) -> None:
        """Make holes where arrays died."""
        while self.died:
            region, start, size = self.died.popleft()
            region.give_back(start, size)
            region.empty_since = self.clock
            self.in_use -= size

    def release(self) -> None:
        self.collect()
        self.drop_empty(0)

    def drop_empty(self, patience: int) -> None:
        """Give regions back that have been empty for so long."""
        kept = [r for r in self.regions if not r.is_empty() or self.clock - r.empty_since < patience]
        self.regions, self.held = kept, sum(r.size for r in kept)


_pool = _Pool()


class Block:
    """A piece of a region, seen through one array; see the module."""

    __slots__ = ("__array_interface__", "piece")

    def __init__(self, piece: tuple[_Region, int, int], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.piece = region, start, _ = piece
        self.__array_interface__ = {
            "version": 3, "shape": shape, "typestr": dtype.str, "data": (region.address + start, False),
        }  # fmt: skip

    def __del__(self, note: Any = _pool.died.append) -> None:  # at exit the module's names may be gone
        note(self.piece)


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Like np.empty, from memory that was used before if it is large."""
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    piece = _pool.do(_pool.take, nbytes) if nbytes > LEAST else None
    return np.empty(shape, dtype) if piece is None else np.asarray(Block(piece, tuple(map(int, shape)), dtype))


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
    _pool.do(_pool.collect)
    return MemoryStats(_pool.in_use, _pool.held, _pool.peak, _pool.mapped)


def release() -> None:
    """Give the regions in which no array lives back to the system."""
    _pool.do(_pool.release)


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
    _pool.lock, _pool.inside = threading.RLock(), False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
