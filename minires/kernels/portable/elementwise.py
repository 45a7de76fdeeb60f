"""Sums of two arrays, and the error function.

The latter by the rational approximations of W. J. Cody, "Rational Chebyshev Approximation for the Error Function"
(Mathematics of Computation 23, 1969), with the coefficients of his program CALERF in SPECFUN: one up to 0.5, one up to
4, one beyond. All three are evaluated everywhere, on arguments held inside their range, and the right one is picked.
"""

from __future__ import annotations

import math

from ...device import Array, array_module
from ..dispatch import kernel

NEAR, FAR = 0.5, 4.0
LAST = 30.0  # erfc is 0 in float64 from 27.3 on
# Numerator and denominator, highest power first.
_ERF = (
    (0.185777706184603153, 3.16112374387056560, 113.864154151050156, 377.485237685302021, 3209.37758913846947),
    (1.0, 23.6012909523441209, 244.024637934444173, 1282.61652607737228, 2844.23683343917062),
)
_ERFC_MIDDLE = (
    (2.15311535474403846e-8, 0.564188496988670089, 8.88314979438837594, 66.1191906371416295, 298.635138197400131,
     881.952221241769090, 1712.04761263407058, 2051.07837782607147, 1230.33935479799725),
    (1.0, 15.7449261107098347, 117.693950891312499, 537.181101862009858, 1621.38957456669019,
     3290.79923573345963, 4362.61909014324716, 3439.36767414372164, 1230.33935480374942),
)  # fmt: skip
_ERFC_FAR = (
    (1.63153871373020978e-2, 0.305326634961232344, 0.360344899949804439, 0.125781726111229246, 1.60837851487422766e-2,
     6.58749161529837803e-4),
    (1.0, 2.56852019228982242, 1.87295284992346725, 0.527905102951428412, 6.05183413124413191e-2,
     2.33520497626869185e-3),
)  # fmt: skip


def _ratio(x: Array, coefficients: tuple[tuple[float, ...], tuple[float, ...]]) -> Array:
    """Two polynomials in x, by Horner's rule, the one divided by the other."""
    values = []
    for first, *middle, last in coefficients:
        y = first * x
        for c in middle:
            y += c
            y *= x
        values.append(y + last)
    return values[0] / values[1]


def _near(x: Array) -> Array:
    """erf for |x| <= NEAR; anything finite beyond."""
    held = array_module(x).clip(x, -NEAR, NEAR)
    return x * _ratio(held * held, _ERF)


def _complement(a: Array) -> Array:
    """erfc(a) for a >= NEAR."""
    xp = array_module(a)
    a = xp.minimum(a, LAST)
    middle, far = xp.minimum(a, FAR), xp.maximum(a, FAR)
    inverse = 1 / (far * far)
    tail = (1 / math.sqrt(math.pi) - inverse * _ratio(inverse, _ERFC_FAR)) / far
    # exp(-a^2) would take a^2's rounding times a^2. The square of a's first bits is exact; what is left is small.
    head = xp.floor(a * 16) / 16
    decay = xp.exp(-head * head) * xp.exp((head - a) * (head + a))
    return decay * xp.where(a <= FAR, _ratio(middle, _ERFC_MIDDLE), tail)


@kernel
def add(a: Array, b: Array) -> Array:
    """a + b, for two arrays of one shape and dtype: an array also where these have no dimensions."""
    return array_module(a).asarray(a + b)


@kernel
def add_(a: Array, b: Array) -> None:
    """Add b to a, an array of the same shape and dtype, in place."""
    a += b


@kernel
def erf(x: Array) -> Array:
    """The error function 2/sqrt(pi) * integral of exp(-t^2) from 0 to x; NaN stays NaN."""
    xp = array_module(x)
    a = xp.abs(x)
    return xp.where(a <= NEAR, _near(x), xp.copysign(1 - _complement(a), x))


@kernel
def erfc(x: Array) -> Array:
    """1 - erf(x), with all its digits where that is nearly 0."""
    xp = array_module(x)
    a = xp.abs(x)
    rest = _complement(a)
    return xp.where(a <= NEAR, 1 - _near(x), xp.where(x > 0, rest, 2 - rest))
