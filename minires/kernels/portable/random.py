"""Random numbers as a function of (seed, epoch, index): no stream whose position would have to be saved.

Philox-4x32-10, from Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011), section 4.
"""

from __future__ import annotations

from ...device import Array, array_module
from ..dispatch import kernel

# One number for each use, so that two uses of the same (seed, epoch, index) do not draw alike.
SHUFFLE, CROP, FLIP, CUTOUT, MIXUP_PAIR, MIXUP_SHARE, CUTMIX_PAIR, CUTMIX_SHARE = range(8)

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


def words(seed: int, epoch: int, index: Array, use: int) -> Array:
    """Four random 32-bit words for each example of `index` (N,), in uint32: (N, 4)."""
    xp = array_module(index)
    counter = xp.zeros((len(index), 4), xp.uint32)
    counter[:, 0] = index & _LOW
    counter[:, 1] = index.astype(xp.uint64) >> xp.uint64(32)
    counter[:, 2] = epoch
    counter[:, 3] = use
    return philox4x32(counter, key(seed))


def key(seed: int) -> tuple[int, int]:
    """A seed as Philox's key."""
    return seed & _LOW, seed >> 32 & _LOW


def below(word: Array, n: int) -> Array:
    """Random words (N,) as integers in [0, n)."""
    xp = array_module(word)
    return (word.astype(xp.uint64) * xp.uint64(n) >> xp.uint64(32)).astype(xp.int64)
