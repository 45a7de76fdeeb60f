"""Dropout: which elements stay is a function of a key and of each element's number, whatever the layout or device."""

from __future__ import annotations

from ...device import Array, array_module
from ..dispatch import kernel
from .random import philox4x32

BLOCK = 1 << 18  # elements whose random words are made at a time: their arrays of 64-bit numbers stay in the cache


@kernel
def dropout_mask(x: Array, key: tuple[int, int], p: float) -> Array:
    """Booleans of x's shape, False with probability p.

    Element i, counted in C order, is False if word i % 4 of philox4x32 at the counter i // 4 is below p * 2^32.
    """
    xp = array_module(x)
    if p == 1:  # 2^32 is no 32-bit word
        return xp.zeros(x.shape, bool)
    mask = xp.empty(x.size + -x.size % 4, bool)
    for start in range(0, len(mask), BLOCK):
        part = mask[start : start + BLOCK]
        row = xp.arange(start // 4, (start + len(part)) // 4, dtype=xp.uint64)
        counter = xp.zeros((len(row), 4), xp.uint32)
        counter[:, 0] = row & xp.uint64(0xFFFFFFFF)
        counter[:, 1] = row >> xp.uint64(32)
        part[...] = philox4x32(counter, key).reshape(-1) >= xp.uint32(int(p * 2**32))
    return mask[: x.size].reshape(x.shape)


@kernel
def dropout(x: Array, mask: Array, p: float) -> Array:
    """x / (1 - p) where the mask holds, else 0, also where x is infinite or NaN."""
    return array_module(x).where(mask, x / (1 - p), 0)
