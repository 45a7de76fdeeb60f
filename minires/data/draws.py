"""Random draws that are a function of (seed, epoch, index): any batch of any epoch can be drawn again, in any order."""

from __future__ import annotations

import numpy as np

from ..kernels import philox4x32

# One number for each use, so that two uses of the same (seed, epoch, index) do not draw alike.
SHUFFLE, CROP, FLIP = range(3)


def words(seed: int, epoch: int, index: np.ndarray, use: int) -> np.ndarray:
    """Four random 32-bit words for each example of `index` (N,), in uint32: (N, 4)."""
    counter = np.zeros((len(index), 4), np.uint32)
    counter[:, 0] = np.asarray(index) & 0xFFFFFFFF
    counter[:, 1] = np.asarray(index, np.uint64) >> np.uint64(32)
    counter[:, 2] = epoch
    counter[:, 3] = use
    return philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))


def below(word: np.ndarray, n: int) -> np.ndarray:
    """Random words (N,) as integers in [0, n)."""
    return (word.astype(np.uint64) * np.uint64(n) >> np.uint64(32)).astype(np.int64)


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """The numbers 0 to n - 1 in the random order of an epoch, int64."""
    drawn = words(seed, epoch, np.arange(n), SHUFFLE).astype(np.uint64)
    return np.argsort(drawn[:, 0] << np.uint64(32) | drawn[:, 1], kind="stable")
