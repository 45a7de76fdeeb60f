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


def ambiguous(modules: Iterable[tuple[str, Any]]) -> list[str]:
    """A sentence for each Linear layer of named modules that seems to follow a flattened map of unknown size.

    That is: the first one after a convolution, with several times as many inputs as that has channels.
    """
    found, channels = [], 0
    for name, module in modules:
        weight = module._parameters.get("weight")
        if weight is None:
            continue
        if weight.layout == "HWIO":
            channels = getattr(module, "out_channels", 0)
        elif weight.ndim == 2:
            inputs = weight.shape[1]
            if channels and weight.layout is None and inputs > channels and inputs % channels == 0:
                found.append(
                    f"{name!r} takes {inputs} inputs after {channels} channels: PyTorch flattens a map in another "
                    "order, so give that Linear image_size=(H, W) of the map, or (1, 1) if it is none"
                )
            channels = 0
    return found


def _permuted(value: Any, axes: tuple[int, ...]) -> Any:
    return value.permute(axes) if isinstance(value, Tensor) else value.transpose(axes)


def _flattens(shape: tuple[int, ...], image_size: tuple[int, int]) -> bool:
    return len(shape) == 2 and shape[1] % (image_size[0] * image_size[1]) == 0
