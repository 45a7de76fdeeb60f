"""Random numbers as a function of (seed, epoch, index): no stream whose position would have to be saved.

Philox-4x32-10, from Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011), section 4.
"""

from __future__ import annotations

from ...device import Array, array_module
from ..dispatch import kernel

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)  # the golden ratio and sqrt(3) - 1: what the key grows by each round
_LOW = 0xFFFFFFFF


@kernel
def philox4x32(counter: Array, key: tuple[int, int], rounds: int = 10) -> Array:
    """Four random 32-bit words for each row of counter (N, 4), in uint32: (N, 4). The key is two 32-bit numbers."""
    xp = array_module(counter)
    c0, c1, c2, c3 = (counter[:, i].astype(xp.uint64) for i in range(4))
    k0, k1 = key
    shift, low = xp.uint64(32), xp.uint64(_LOW)
    for _ in range(rounds):  # in place: four arrays of the caller's size are enough
        c0 *= xp.uint64(_MULTIPLIERS[0])
        c2 *= xp.uint64(_MULTIPLIERS[1])
        c1 ^= (c2 >> shift) ^ xp.uint64(k0)
        c3 ^= (c0 >> shift) ^ xp.uint64(k1)
        c0 &= low
        c2 &= low
        c0, c1, c2, c3 = c1, c2, c3, c0
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return xp.stack([c0, c1, c2, c3], axis=1).astype(xp.uint32)
