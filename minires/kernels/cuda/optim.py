"""The optimizers' updates over all parameters at once."""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from ...device import Array
from ..dispatch import variant
from ..portable.optim import sgd_foreach_
from .compiler import THREADS, blocks, launch
from .norm import ON_GPU

MOST, EACH = 96, 4096  # as in optim.cu: parameters of a launch, elements of a block
_POINTERS = [(name, np.uint64, MOST) for name in ("w", "g", "velocity")]
_TABLE = np.dtype([*_POINTERS, ("size", np.int64, MOST), ("last", np.int32, MOST)])
_SETTINGS = np.dtype(
    [(name, np.float32) for name in ("lr", "momentum", "undamped", "weight_decay")]
    + [(name, np.int32) for name in ("nesterov", "maximize", "count", "unused")]
)


@variant(sgd_foreach_, ON_GPU)
def sgd_foreach__cuda(
    weights: list[Array],
    gradients: list[Array],
    velocities: list[Array] | None,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> None:
    """One launch for 96 parameters, whose addresses are among its arguments: nothing is copied to the GPU."""
    filled = [i for i, w in enumerate(weights) if w.size]
    for start in range(0, len(filled), MOST):
        part = filled[start : start + MOST]
        table, n = np.zeros((), _TABLE), len(part)
        table["w"][:n] = [weights[i].data.ptr for i in part]
        table["g"][:n] = [gradients[i].data.ptr for i in part]
        if velocities is not None:
            table["velocity"][:n] = [velocities[i].data.ptr for i in part]
        table["size"][:n] = [weights[i].size for i in part]
        table["last"][:n] = ends = list(accumulate(blocks(weights[i].size, EACH) for i in part))
        settings = np.array((lr, momentum, 1 - dampening, weight_decay, nesterov, maximize, n, 0), _SETTINGS)
        launch("optim", "sgd_foreach", (ends[-1],), THREADS, table, settings)
