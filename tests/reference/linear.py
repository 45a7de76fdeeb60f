"""Matrix products, as loops."""

from __future__ import annotations

import math

import numpy as np

from tests.reference.elementwise import places


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The matrix product; a 1-D array is a row on the left and a column on the right."""
    a2, b2 = a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b
    batch = np.broadcast_shapes(a2.shape[:-2], b2.shape[:-2])
    a2, b2 = np.broadcast_to(a2, (*batch, *a2.shape[-2:])), np.broadcast_to(b2, (*batch, *b2.shape[-2:]))
    out = np.empty((*batch, a2.shape[-2], b2.shape[-1]))
    for *lead, i, j in places(*out.shape):
        out[*lead, i, j] = math.fsum(a2[*lead, i, k] * b2[*lead, k, j] for k in range(a2.shape[-1]))
    out = out[..., 0, :] if a.ndim == 1 else out
    return out[..., 0] if b.ndim == 1 else out


def linear(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """x (..., I), w (O, I), b (O,): (..., O)."""
    out = np.empty((*x.shape[:-1], len(w)))
    for *lead, o in places(*out.shape):
        products = [x[*lead, i] * w[o, i] for i in range(w.shape[1])]
        out[*lead, o] = math.fsum(products + ([] if b is None else [b[o]]))
    return out
