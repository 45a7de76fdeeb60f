"""ONNX nodes that have weights, as layers, and their places in the model: PyTorch's names where the file has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..nn import BatchNorm2d, Buffer, Conv2d, ConvTranspose2d, Dropout, Linear, Module, Parameter
from ..nn.module import HWIO_FROM_OIHW
from .operators import Value, of_images, of_plain, padding_of

ROLES = {
    "Conv": ("weight", "bias"),
    "ConvTranspose": ("weight", "bias"),
    "Gemm": ("weight", "bias"),
    "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
    "Dropout": (),
}  # which attribute of the layer each input after the first becomes


def of_images_only(array: Any) -> tuple[int, int, int, int]:
    if array.ndim != 4:
        raise ArgumentError(f"only convolution of images, with 4 axes of weights, not {array.ndim}")
    return array.shape


def _conv(
    weight: Any, bias: Any = None, *, kernel_shape: Any = None, strides: Any = None, pads: Any = None,
    dilations: Any = None, group: int = 1, auto_pad: str = "NOTSET",
) -> Module:  # fmt: skip
    outputs, inputs, *size = of_images_only(weight)
    _check_kernel(kernel_shape, size)
    steps = tuple(strides or (1, 1)), padding_of(auto_pad, pads), tuple(dilations or (1, 1))
    layer = Conv2d(1, 1, 1, *steps, generator=np.random.default_rng(0))
    return _with_weights(layer, weight, bias, inputs * group, outputs, group)


def _conv_transpose(
    weight: Any, bias: Any = None, *, kernel_shape: Any = None, strides: Any = None, pads: Any = None,
    dilations: Any = None, group: int = 1, output_padding: Any = None, auto_pad: str = "NOTSET",
) -> Module:  # fmt: skip
    inputs, outputs, *size = of_images_only(weight)
    _check_kernel(kernel_shape, size)
    if auto_pad not in ("NOTSET", "VALID"):
        raise ArgumentError(f"transposed convolution with auto_pad={auto_pad!r}")
    (top, bottom), (left, right) = padding_of("NOTSET", pads if auto_pad == "NOTSET" else None)
    if (top, left) != (bottom, right):
        raise ArgumentError("transposed convolution only with pads that are equal on both sides")
    steps = tuple(strides or (1, 1)), (top, left), tuple(output_padding or (0, 0))
    layer = ConvTranspose2d(1, 1, 1, *steps, dilation=tuple(dilations or (1, 1)), generator=np.random.default_rng(0))
    return _with_weights(layer, weight, bias, inputs, outputs * group, group)


def _check_kernel(kernel_shape: Any, size: Sequence[int]) -> None:
    if kernel_shape is not None and list(kernel_shape) != list(size):
        raise ArgumentError(f"kernel_shape {list(kernel_shape)}, but weights of {list(size)}")


def _with_weights(layer: Any, weight: Any, bias: Any, inputs: int, outputs: int, groups: int) -> Module:
    """A layer that was made for one channel, so that no weights are drawn to be thrown away, with those of the file."""
    if groups < 1 or min(weight.shape) < 1 or inputs % groups or outputs % groups:
        raise ArgumentError(f"weights of shape {weight.shape} for {groups} groups")
    if bias is not None and bias.shape != (outputs,):
        raise ArgumentError(f"a bias of shape {bias.shape} for {outputs} channels")
    layer.in_channels, layer.out_channels, layer.groups = inputs, outputs, groups
    layer.kernel_size = weight.shape[2:]
    layer.weight = Parameter(np.ascontiguousarray(weight.transpose(HWIO_FROM_OIHW)), layout="HWIO")
    layer.bias = None if bias is None else Parameter(bias.copy())
    return layer


def _gemm(
    weight: Any, bias: Any = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0
) -> Module:
    if weight.ndim != 2 or min(weight.shape) < 1:
        raise ArgumentError(f"weights of shape {weight.shape}")
    weight = weight if transB else weight.T
    outputs, inputs = weight.shape
    layer = Linear(1, 1, bias is not None, generator=np.random.default_rng(0))
    layer.in_features, layer.out_features = inputs, outputs
    layer.weight = Parameter(np.multiply(weight, weight.dtype.type(alpha), order="C"))
    if bias is not None:
        if bias.size not in (1, outputs) or bias.shape not in ((), (1,), (outputs,), (1, 1), (1, outputs)):
            raise ArgumentError(f"a bias of shape {bias.shape} for {outputs} outputs")
        layer.bias = Parameter(np.broadcast_to(bias.reshape(-1) * bias.dtype.type(beta), (outputs,)).copy())
    return layer


def _batch_norm(
    weight: Any, bias: Any, mean: Any, variance: Any, *, epsilon: float = 1e-5, momentum: float = 0.9,
    training_mode: int = 0,
) -> Module:  # fmt: skip
    if weight.ndim != 1 or any(v.shape != weight.shape for v in (bias, mean, variance)):
        raise ArgumentError(f"vectors of shapes {[v.shape for v in (weight, bias, mean, variance)]}")
    layer = BatchNorm2d(len(weight), epsilon, float(1 - Decimal(str(momentum))))  # 0.1, not 0.09999999999999998
    layer.weight, layer.bias = Parameter(weight.copy()), Parameter(bias.copy())
    layer.running_mean, layer.running_var = Buffer(mean.copy()), Buffer(variance.copy())
    return layer


def _dropout(*, ratio: Any = None, training_mode: Any = None, seed: int = 0) -> Module:
    return Dropout(0.5 if ratio is None else float(ratio))


LAYERS: dict[str, Callable[..., Module]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "BatchNormalization": _batch_norm,
    "Dropout": _dropout,
}


def run(layer: Module, x: Value) -> Value:
    """The layer, on images or on rows."""
    if isinstance(layer, Dropout):
        return x._replace(tensor=layer(x.tensor))
    if isinstance(layer, Linear) or (isinstance(layer, BatchNorm2d) and len(x.order) != 4):
        return of_plain(layer(x.plain))
    return of_images(layer(x.images))


def path_of(node: Any, weight: str) -> str:
    """A layer's dotted name: that of its weight, or of its node, or what it does.

    PyTorch names nodes by their scopes, "/layer1/layer1.0/conv1/Conv", and weights that it made anew "onnx::Conv_193".
    """
    name, dot, last = weight.rpartition(".")
    if dot and last == "weight":
        return name
    path: list[str] = []
    for scope in node.name.strip("/").split("/")[:-1]:
        if path and scope.startswith(f"{path[-1]}."):
            path.pop()
        path.append(scope)
    return ".".join(path) or node.op_type.lower()


def place(root: Module, path: str, entry: Module | Parameter, fallback: str) -> None:
    """Put a layer or a parameter at a dotted name; where that is no name, or taken, at `fallback` or one like it."""
    *parents, name = path.split(".")
    usual = all(0 < len(part) <= 100 and not part.startswith("_") for part in (*parents, name))
    if usual and len(parents) < 30 and path.isprintable():
        module: Any = root
        for part in parents:
            if not isinstance(getattr(module, part, None), Module):
                if hasattr(module, part):
                    break
                module.add_module(part, Module())
            module = getattr(module, part)
        else:
            if not hasattr(module, name):
                add = module.add_module if isinstance(entry, Module) else module.register_parameter
                add(name, entry)
                return
    number = len(root._modules) + len(root._parameters)
    while hasattr(root, f"{fallback}_{number}"):
        number += 1
    place(root, f"{fallback}_{number}", entry, fallback)
