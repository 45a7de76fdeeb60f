"""Convolution and batch norm as one convolution, in evaluation."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..ops.norm import fold_batch_norm
from ..tensor import Tensor
from .conv import Conv2d
from .norm import BatchNorm2d


def conv_norm(conv: Conv2d, norm: BatchNorm2d | None, x: Any, add: Any = None, relu: bool = False) -> Tensor:
    """norm(conv(x), add=add, relu=relu), or conv(x, add=add, relu=relu) where there is no norm.

    In evaluation batch norm multiplies each channel by a constant and adds another. Where no gradient is wanted, they
    go into the convolution's weights and bias: see fold_batch_norm in ops/norm.py. Hooks on the two layers,
    detect_anomaly, and layers derived from these get to see both.
    """
    if norm is None:
        return conv(x, add=add, relu=relu)
    folded = None
    if not norm.training and type(conv) is Conv2d and type(norm) is BatchNorm2d and not _hooked(conv, norm):
        of_conv, of_norm, running = conv._parameters, norm._parameters, norm._buffers  # sooner found here than by name
        folded = fold_batch_norm(
            of_conv["weight"], conv.bias, running["running_mean"], running["running_var"],
            of_norm["weight"], of_norm["bias"], norm.eps,
        )  # fmt: skip
    if folded is None:
        return norm(conv(x), add=add, relu=relu)
    return ops.conv2d(x, *folded, conv.stride, conv.padding, conv.dilation, conv.groups, add=add, relu=relu)


def _hooked(conv: Conv2d, norm: BatchNorm2d) -> bool:
    """Whether somebody would miss a call of either."""
    return bool(conv._forward_hooks or conv._forward_pre_hooks or norm._forward_hooks or norm._forward_pre_hooks)
