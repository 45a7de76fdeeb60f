"""Dropout: which elements stay is a function of a key and of each element's number, whatever the layout or device."""

from __future__ import annotations

from ...device import Array, array_module
from ..dispatch import kernel
from .random import philox4x32


@kernel
def dropout_mask(x: Array, key: tuple[int, int], p: float) -> Array:
    """Booleans of x's shape, False with probability p.

    Element i, counted in C order, is False if word i % 4 of philox4x32 at the counter i // 4 is below p * 2^32.
    """
    xp = array_module(x)
    if p == 1:  # 2^32 is no 32-bit word
        return xp.zeros(x.shape, bool)
    row = xp.arange((x.size + 3) // 4, dtype=xp.uint64)
    zero = xp.zeros_like(row)
    counter = xp.stack([row & xp.uint64(0xFFFFFFFF), row >> xp.uint64(32), zero, zero], axis=1)
    words = philox4x32(counter, key).reshape(-1)[: x.size].reshape(x.shape)
    return words >= xp.uint32(int(p * 2**32))


@kernel
def dropout(x: Array, mask: Array, p: float) -> Array:
    """x / (1 - p) where the mask holds, else 0, also where x is infinite or NaN."""
    return array_module(x).where(mask, x / (1 - p), 0)
