"""Memory for large NumPy arrays that is used again: fresh pages cost more than the work on them.

The system hands out new memory page by page, each zeroed at its first touch; a training step that maps all its arrays
anew spends half its time there. Here a block goes back to a free list when the last array that sees it dies.

How that is known: NumPy keeps the `Block` alive as the base of the array made from its `__array_interface__`, and each
view of that array, and each view of a view, keeps that array. So `Block.__del__` runs when nobody can see the memory.
"""

from __future__ import annotations

import math
import threading
from typing import Any, NamedTuple

import numpy as np

LEAST = 1 << 18  # bytes: smaller arrays come from NumPy, whose allocator keeps small memory itself
STEP = 1 << 16  # sizes are rounded up to multiples of this
LINE = 64  # bytes: arrays begin on a cache line, where AVX-512 loads cost up to a third less
IDLE = 4096  # requests after which a block that lay free all the time goes back to the system


class MemoryStats(NamedTuple):
    """Bytes: seen by arrays, held in all, the most ever held; and how many blocks were ever mapped anew."""

    in_use: int
    held: int
    peak: int
    mapped: int


class _Pool:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.free: dict[int, list[tuple[int, np.ndarray]]] = {}  # size -> (when it came back, memory)
        self.clock = self.mapped = self.in_use = self.held = self.peak = 0

    def take(self, nbytes: int) -> np.ndarray:
        size = -(-nbytes // STEP) * STEP
        with self.lock:
            self.clock += 1
            self.in_use += size
            blocks = self.free.get(size)
            if blocks:
                return blocks.pop()[1]
            self._drop_idle()
            self.mapped += 1
            self.held += size
            self.peak = max(self.peak, self.held)
        memory = np.empty(size + LINE, np.uint8)
        start = -memory.ctypes.data % LINE
        return memory[start : start + size]

    def give_back(self, memory: np.ndarray) -> None:
        with self.lock:
            self.in_use -= memory.nbytes
            self.free.setdefault(memory.nbytes, []).append((self.clock, memory))

    def _drop_idle(self) -> None:
        """Blocks that nobody asked for in a long time: their shapes belong to something that is over."""
        for size, blocks in list(self.free.items()):
            kept = [(when, memory) for when, memory in blocks if self.clock - when < IDLE]
            self.held -= size * (len(blocks) - len(kept))
            self.free[size] = kept


_pool = _Pool()


class Block:
    """Memory of the pool, seen through one array; see the module."""

    __slots__ = ("__array_interface__", "memory")

    def __init__(self, memory: np.ndarray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.memory = memory
        self.__array_interface__ = {
            "version": 3, "shape": shape, "typestr": dtype.str, "data": (memory.ctypes.data, False),
        }  # fmt: skip

    def __del__(self) -> None:
        _pool.give_back(self.memory)


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


def is_whole(array: Any) -> bool:
    """Whether an array is all of its memory, and no view of another array."""
    return array.base is None or isinstance(array.base, Block)


def stats() -> MemoryStats:
    """What the pool holds now."""
    return MemoryStats(_pool.in_use, _pool.held, _pool.peak, _pool.mapped)


def release() -> None:
    """Give all memory that no array sees back to the system."""
    with _pool.lock:
        _pool.held -= sum(size * len(blocks) for size, blocks in _pool.free.items())
        _pool.free.clear()
