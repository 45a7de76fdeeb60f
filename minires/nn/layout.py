"""The order of a weight's elements: minires' own, and PyTorch's, in whose nets images are (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..tensor import Tensor

# The axes of a convolution weight in minires' order, HWIO, that make PyTorch's order, OIHW; and back.
OIHW_FROM_HWIO, HWIO_FROM_OIHW = (3, 2, 0, 1), (2, 3, 1, 0)

# Of a parameter: "HWIO" for a convolution's weight; (H, W) for a Linear weight (O, H*W*C) over a flattened map, which
# PyTorch flattens as (C, H, W); None for all that are alike in both.
Layout = str | tuple[int, int] | None


def to_oihw(value: Any, layout: Layout) -> Any:
    """A weight, Tensor or array, in PyTorch's order: a view of a convolution's, a copy of a Linear's."""
    if layout == "HWIO" and value.ndim == 4:
        return _permuted(value, OIHW_FROM_HWIO)
    if isinstance(layout, tuple) and _flattens(value.shape, layout):
        rows, columns = value.shape
        return _permuted(value.reshape(rows, *layout, -1), (0, 3, 1, 2)).reshape(rows, columns)
    return value


def from_oihw(value: Any, layout: Layout) -> Any:
    """The inverse of `to_oihw`. What has another shape than such a weight stays as it is."""
    if layout == "HWIO" and value.ndim == 4:
        return _permuted(value, HWIO_FROM_OIHW)
    if isinstance(layout, tuple) and _flattens(value.shape, layout):
        rows, columns = value.shape
        return _permuted(value.reshape(rows, -1, *layout), (0, 2, 3, 1)).reshape(rows, columns)
    return value


def ambiguous(modules: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """The name of each weight of named modules that may follow a flattened map of unknown size, and a sentence on it.

    That is: a Linear's whose inputs are several times some convolution's channels, and neither the channels of one nor
    the outputs of a Linear before it.
    """
    weights = [(name, m, w) for name, m in modules if (w := m._parameters.get("weight")) is not None]
    channels = {getattr(m, "out_channels", w.shape[-1]) for _, m, w in weights if w.layout == "HWIO"}
    plain, found = set(channels), {}
    for name, _, weight in weights:
        if weight.ndim == 2:
            outputs, inputs = weight.shape
            if weight.layout is None and inputs not in plain and any(inputs % count == 0 for count in channels):
                found[f"{name}.weight" if name else "weight"] = (
                    f"{name!r} takes {inputs} inputs, which may be a flattened map: PyTorch flattens maps in another "
                    "order, so give that Linear image_size=(H, W) of the map, or (1, 1) if it is none"
                )
            plain.add(outputs)
    return found


def _permuted(value: Any, axes: tuple[int, ...]) -> Any:
    return value.permute(axes) if isinstance(value, Tensor) else value.transpose(axes)


def _flattens(shape: tuple[int, ...], image_size: tuple[int, int]) -> bool:
    return len(shape) == 2 and shape[1] % (image_size[0] * image_size[1]) == 0
