"""Random draws that are a function of (seed, epoch, index): any batch of any epoch can be drawn again, in any order."""

from __future__ import annotations

import math

import numpy as np

from ..device import Array, array_module
from ..kernels.portable.random import CROP as CROP
from ..kernels.portable.random import CUTMIX_PAIR as CUTMIX_PAIR
from ..kernels.portable.random import CUTMIX_SHARE as CUTMIX_SHARE
from ..kernels.portable.random import CUTOUT as CUTOUT
from ..kernels.portable.random import FLIP as FLIP
from ..kernels.portable.random import MIXUP_PAIR as MIXUP_PAIR
from ..kernels.portable.random import MIXUP_SHARE as MIXUP_SHARE
from ..kernels.portable.random import SHUFFLE as SHUFFLE
from ..kernels.portable.random import below as below
from ..kernels.portable.random import words as words


def ranks(word: Array) -> Array:
    """The order that the first two of each row's words (N, 4) sort rows into: a random permutation (N,), int64."""
    wide = word.astype(np.uint64)
    return (wide[:, 0] << np.uint64(32) | wide[:, 1]).argsort(kind="stable")


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """The numbers 0 to n - 1 in the random order of an epoch, int64."""
    return ranks(words(seed, epoch, np.arange(n), SHUFFLE))


def symmetric_beta(word: Array, alpha: float) -> Array:
    """A draw from Beta(alpha, alpha), alpha > 0, for each row of words (N, 4): (N,) float64, without rejection.

    The first coordinate z of a point of the unit disc with density (1 - r^2)^(a - 3/2) makes (1 + z)/2 ~ Beta(a, a)
    (Devroye, "Non-Uniform Random Variate Generation", 1986, chapter IX, symmetric beta). Here a = alpha + 1, so that
    any alpha is in its range a > 1/2. A gamma variate of shape alpha is one of shape alpha + 1 times U^(1/alpha):
    the odds of Beta(alpha, alpha) are those of Beta(alpha + 1, alpha + 1) times (U1/U2)^(1/alpha).
    """
    xp = array_module(word)
    u = (word + 0.5) / 2.0**32  # inside (0, 1)
    log = xp.log(u)
    radius = xp.sqrt(-xp.expm1(log[:, 0] / (alpha + 0.5)))
    z = radius * xp.cos(2 * math.pi * u[:, 1]) * (1 - 2.0**-53)  # never 1 exactly
    return (1 + xp.tanh(xp.arctanh(z) + (log[:, 2] - log[:, 3]) / (2 * alpha))) / 2  # the odds, as half their logarithm
