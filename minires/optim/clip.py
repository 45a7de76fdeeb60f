"""Clipping of gradients, between backward and the optimizer's step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..autograd import is_tensor, wrap
from ..device import array_module, check_one_device
from ..errors import ArgumentError, GraphError
from ..kernels import power_sum, quiet, scale_


def clip_grad_norm_(
    parameters: Any, max_norm: float, norm_type: float = 2.0, *, error_if_nonfinite: bool = False
) -> Any:
    """Scale all gradients by max_norm / (norm + 1e-6) if that is below 1, and return the norm before, as a Tensor.

    The norm is that of all gradients as one vector (Pascanu, Mikolov and Bengio, 2013, section 3.2), summed in
    float64, and returned in the gradients' type, float32 at least. Nothing waits for a GPU. As in PyTorch one NaN among
    the gradients makes all of them NaN, and an infinity makes itself NaN and the others 0, unless
    `error_if_nonfinite`, which raises GraphError first; that has to wait.
    """
    max_norm, norm_type = float(max_norm), float(norm_type)
    if not max_norm >= 0:
        raise ArgumentError(f"clip_grad_norm_: max_norm must be at least 0, not {max_norm}")
    if not norm_type > 0:
        raise ArgumentError(f"clip_grad_norm_: norm_type must be above 0, or infinite, not {norm_type}")
    gradients = _gradients("clip_grad_norm_", parameters)
    if not gradients:
        return wrap(np.zeros((), np.float32))
    xp = array_module(gradients[0].data)
    with quiet():
        sums = xp.stack([power_sum(g.data, norm_type) for g in gradients])
        norm = sums.max() if norm_type == math.inf else sums.sum() ** (1 / norm_type)
        if error_if_nonfinite and not xp.isfinite(norm):
            raise GraphError(
                f"clip_grad_norm_: the norm of order {norm_type} of the gradients is {norm.item()}, so they cannot be "
                "scaled; detect_anomaly() finds the op that made it"
            )
        factor = xp.minimum(max_norm / (norm + 1e-6), 1)
        for g in gradients:
            scale_(g.data, factor)
            g.version.count += 1
        return wrap(xp.asarray(norm).astype(xp.result_type(xp.float32, *(g.dtype for g in gradients))))


def clip_grad_value_(parameters: Any, clip_value: float) -> None:
    """Every entry of the gradients moved into [-clip_value, clip_value], in place; NaN stays NaN."""
    clip_value = float(clip_value)
    if not clip_value >= 0:
        raise ArgumentError(f"clip_grad_value_: clip_value must be at least 0, not {clip_value}")
    for g in _gradients("clip_grad_value_", parameters):
        with quiet():  # a value beyond float16 is an infinity
            array_module(g.data).clip(g.data, -clip_value, clip_value, out=g.data)
        g.version.count += 1


def _gradients(name: str, parameters: Any) -> list[Any]:
    """Those that are there, of one parameter or several. Raises DTypeError, DeviceError."""
    given: Iterable[Any] = [parameters] if is_tensor(parameters) else parameters
    gradients = [p.grad for p in given if p.grad is not None]
    check_one_device(name, [g.data for g in gradients])
    return gradients
