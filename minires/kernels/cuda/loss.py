"""Softmax cross-entropy: a warp for each row, terms in float and sums in double, always in the same order."""

from __future__ import annotations

import numpy as np

from ...device import Array, array_module
from ..dispatch import Accepts, variant
from ..portable.loss import cross_entropy, cross_entropy_grad
from .compiler import THREADS, blocks, launch

ROWS = THREADS // 32  # of a block
# The gradient of a mean is one number, repeated as a view.
LOGITS_AND_LABELS = Accepts("cuda", ("float32", "int64"), contiguous=False)


def labelled(z: Array, target: Array, scale: Array | None) -> bool:
    """contiguous float32 logits and scale, not empty, and int64 targets"""
    floats = [z] if scale is None else [z, scale]
    contiguous = all(a.flags.c_contiguous for a in (*floats, target))
    return contiguous and z.size > 0 and target.dtype == np.int64 and all(a.dtype == np.float32 for a in floats)


def labelled_grad(gy: Array, z: Array, target: Array, scale: Array | None) -> bool:
    """contiguous float32 logits and scale, not empty, int64 targets and float32 gradients"""
    return gy.dtype == np.float32 and labelled(z, target, scale)


@variant(cross_entropy, LOGITS_AND_LABELS, suits=labelled)
def cross_entropy_cuda(z: Array, target: Array, scale: Array | None) -> Array:
    """The loss of a target outside [0, C) is NaN where its scale is not 0: on a GPU nobody looks at labels before."""
    loss = array_module(z).empty(len(z), np.float32)
    launch("loss", "cross_entropy", (blocks(len(z), ROWS),), THREADS, z, target, scale, loss, *z.shape)
    return loss


@variant(cross_entropy_grad, LOGITS_AND_LABELS, suits=labelled_grad)
def cross_entropy_grad_cuda(gy: Array, z: Array, target: Array, scale: Array | None) -> Array:
    """The row of a target outside [0, C) is NaN where its scale is not 0."""
    xp = array_module(z)
    gz = xp.empty(z.shape, np.float32)
    gy = xp.ascontiguousarray(gy)
    launch("loss", "cross_entropy_grad", (blocks(len(z), ROWS),), THREADS, gy, z, target, scale, gz, *z.shape)
    return gz
