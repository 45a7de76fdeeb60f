"""Philox on the GPU: the same integers as on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...device import Array, array_module
from ..dispatch import Accepts, variant
from ..portable.dropout import dropout_mask
from ..portable.random import philox4x32
from .compiler import THREADS, blocks, launch


def filled(x: Array, *rest: Any, **settings: Any) -> bool:
    """arrays that are not empty"""
    return x.size > 0


@variant(philox4x32, Accepts("cuda", ("uint32",)), suits=filled)
def philox4x32_cuda(counter: Array, key: tuple[int, int], rounds: int = 10) -> Array:
    """All rounds in registers."""
    words = array_module(counter).empty(counter.shape, np.uint32)
    launch("random", "philox4x32", (blocks(len(counter)),), THREADS, counter, words, len(counter), *key, rounds)
    return words


@variant(dropout_mask, Accepts("cuda", ("float16", "float32", "float64"), contiguous=False), suits=filled)
def dropout_mask_cuda(x: Array, key: tuple[int, int], p: float) -> Array:
    """Words and comparison in one pass; nothing but the mask is written."""
    xp = array_module(x)
    if p == 1:  # 2^32 is no 32-bit word
        return xp.zeros(x.shape, bool)
    mask = xp.empty(x.shape, bool)
    launch("random", "dropout_mask", (blocks(x.size, 4 * THREADS),), THREADS, mask, x.size, *key, int(p * 2**32))
    return mask
