"""The convolutions of a model, walked from the model itself: no table to go wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.report import Work
from benchmarks.steps import import_torch
from minires import Tensor, models
from minires.errors import ArgumentError
from minires.kernels import ConvGeometry
from minires.nn import Conv2d

SMALL = 64  # rows of an image: smaller ones get the stem of 3x3 that CIFAR's nets have, larger ones ImageNet's 7x7


@dataclass(frozen=True)
class Layer:
    """A convolution of x (N, *size, C) with w (KH, KW, C/G, O), and the names of the layers that have this shape."""

    size: tuple[int, int]
    w_shape: tuple[int, int, int, int]
    geometry: ConvGeometry
    names: list[str] = field(default_factory=list, compare=False)

    @property
    def label(self) -> str:
        """The first layer's name, and how many there are."""
        return self.names[0] + (f" x{len(self.names)}" if len(self.names) > 1 else "")

    @property
    def output_size(self) -> tuple[int, int]:
        """Rows and columns of y."""
        return self.geometry.output_size(self.size, self.w_shape[:2])

    def x_shape(self, batch: int) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        return batch, *self.size, self.w_shape[2] * self.geometry.groups

    def y_shape(self, batch: int) -> tuple[int, int, int, int]:
        """(N, OH, OW, O)."""
        return batch, *self.output_size, self.w_shape[3]

    def describe(self, batch: int) -> str:
        """Name and shapes, such as layer1.0.conv1 x4: 128x32x32x64 to 64, 3x3/1."""
        kh, kw, _, o = self.w_shape
        x = "x".join(map(str, self.x_shape(batch)))
        return f"{self.label}: {x} to {o}, {kh}x{kw}/{self.geometry.stride[0]}"

    def work(self, batch: int) -> Work:
        """Of the forward pass and of either gradient: a multiplication and an addition for each weight and output;
        x, w and y, or their gradients, moved once each."""
        kh, kw, c, _ = self.w_shape
        sizes = (math.prod(shape) for shape in (self.x_shape(batch), self.w_shape, self.y_shape(batch)))
        return Work(2 * math.prod(self.y_shape(batch)) * kh * kw * c, 4 * sum(sizes))


def walk(model: str, size: int) -> list[Layer]:
    """The distinct convolutions of a model for images of `size` x `size`, in the order in which they run.

    The model is minires's, or torchvision's where minires has none of the name.
    """
    return list(distinct(_ours(model, size) if model in models.BUILDERS else _theirs(model, size)))


def distinct(found: Iterator[Layer]) -> list[Layer]:
    """Layers of one shape as one."""
    layers: dict[Layer, Layer] = {}
    for layer in found:
        layers.setdefault(layer, layer)
        if layers[layer] is not layer:
            layers[layer].names.extend(layer.names)
    return list(layers.values())


def _ours(name: str, size: int) -> Iterator[Layer]:
    return of(models.build(name, num_classes=10, stem="cifar" if size < SMALL else "imagenet"), size)


def of(model: models.ResNet, size: int) -> Iterator[Layer]:
    """Every convolution of one of minires's models, in the order in which they run."""
    found: list[Layer] = []
    for path, module in model.named_modules():
        if isinstance(module, Conv2d):

            def note(module, args, y, path=path):
                found.append(Layer(args[0].shape[1:3], module.weight.shape, y.node.geometry, [path]))

            module.register_forward_hook(note)
    model.eval()(Tensor(np.zeros((1, size, size, 3), np.float32)))
    yield from found


def _theirs(name: str, size: int) -> Iterator[Layer]:
    torch, torchvision, _ = import_torch()
    build = getattr(torchvision.models, name, None)
    if build is None or not name.islower():
        raise ArgumentError(f"neither minires nor torchvision has a model {name!r}")
    found: list[Layer] = []

    def note(path, module, args):
        (sh, sw), (ph, pw) = module.stride, module.padding
        geometry = ConvGeometry((sh, sw), (ph, ph, pw, pw), tuple(module.dilation), module.groups)
        o, i, kh, kw = module.weight.shape
        found.append(Layer(tuple(args[0].shape[2:]), (kh, kw, i, o), geometry, [path]))

    with torch.device("meta"):  # shapes only
        model = build(num_classes=10)
        if size < SMALL and hasattr(model, "conv1"):
            model.conv1, model.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
        for path, module in model.named_modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_pre_hook(lambda module, args, path=path: note(path, module, args))
        model.eval()(torch.empty(1, 3, size, size))
    yield from found


def matching(layers: Sequence[Layer], wanted: Sequence[str] | None) -> list[Layer]:
    """Layers one of whose names begins with one of `wanted`; all for None. Raises ArgumentError where there is none."""
    if wanted is None:
        return list(layers)
    for start in wanted:
        if not any(name.startswith(start) for layer in layers for name in layer.names):
            names = ", ".join(name for layer in layers for name in layer.names)
            raise ArgumentError(f"--layers {start}: no layer's name begins so; there are {names}")
    return [layer for layer in layers if any(name.startswith(tuple(wanted)) for name in layer.names)]
