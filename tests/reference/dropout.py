"""Philox and dropout's mask, as loops over whole numbers."""

from __future__ import annotations

import numpy as np

from tests.reference.elementwise import places


def philox(counter: list[int], key: tuple[int, int]) -> list[int]:
    """Philox-4x32-10 (Salmon et al., 2011): four random words of 32 bits for four words of counter."""
    a, b, c, d = counter
    k, m = key
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (q >> 32) ^ b ^ k, q % 2**32, (p >> 32) ^ d ^ m, p % 2**32
        k, m = (k + 0x9E3779B9) % 2**32, (m + 0xBB67AE85) % 2**32
    return [a, b, c, d]


def dropout_mask(shape: tuple[int, ...], key: tuple[int, int], p: float) -> np.ndarray:
    """Whether each element stays, by its number in C order."""
    out = np.empty(shape, bool)
    for i, place in enumerate(places(*shape)):
        out[place] = philox([i // 4 % 2**32, i // 4 >> 32, 0, 0], key)[i % 4] >= int(p * 2**32)
    return out
