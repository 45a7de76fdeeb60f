"""Residual networks of basic blocks (He et al., "Deep Residual Learning for Image Recognition", 2015).

Attribute names, and so the state dict's keys, are torchvision's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..nn import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Linear, MaxPool2d, Module, Sequential, conv_norm, init
from ..tensor import Tensor


class BasicBlock(Module):
    """y = relu(F(x) + shortcut(x)), F two 3x3 convolutions (figure 2); the shortcut is x itself where shapes allow.

    Where the channels or the stride change, it is a 1x1 convolution with batch norm (section 3.3, option B).
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, generator: np.random.Generator | None = None
    ) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, channels, 3, stride, padding=1, bias=False, generator=generator)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = Conv2d(channels, channels, 3, padding=1, bias=False, generator=generator)
        self.bn2 = BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            projection = Conv2d(in_channels, channels, 1, stride, bias=False, generator=generator)
            self.downsample = Sequential(projection, BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = conv_norm(self.conv1, self.bn1, x, relu=True)  # bn1(conv1(x), relu=True): batch norm and ReLU in one op
        return conv_norm(self.conv2, self.bn2, y, add=shortcut, relu=True)


class ResNet(Module):
    """Stem, stages of basic blocks, global average pooling and a linear classifier; input (N, H, W, in_channels).

    `layers[i]` blocks of `widths[i]` channels make stage i; every stage but the first halves the image. The stem is a
    3x3 convolution for small images ("cifar"), or a 7x7 one of stride 2 with max pooling ("imagenet").
    """

    def __init__(
        self,
        layers: Sequence[int],
        num_classes: int,
        stem: str = "cifar",
        widths: Sequence[int] = (64, 128, 256, 512),
        in_channels: int = 3,
        generator: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        if stem not in ("cifar", "imagenet"):
            raise ArgumentError(f"ResNet: stem must be 'cifar' or 'imagenet', not {stem!r}")
        if not 1 <= len(layers) <= len(widths):
            raise ArgumentError(
                f"ResNet: {len(layers)} stages in layers={layers}, but widths={widths} has {len(widths)}"
            )
        size, stride, padding = (3, 1, 1) if stem == "cifar" else (7, 2, 3)
        self.conv1 = Conv2d(in_channels, widths[0], size, stride, padding, bias=False, generator=generator)
        self.bn1 = BatchNorm2d(widths[0])
        self.maxpool = MaxPool2d(3, stride=2, padding=1) if stem == "imagenet" else None
        channels = widths[0]
        self.stages: list[str] = []
        for i, (blocks, width) in enumerate(zip(layers, widths, strict=False)):
            stage = Sequential()
            for j in range(blocks):
                stage.append(BasicBlock(channels, width, 2 if i > 0 and j == 0 else 1, generator))
                channels = width
            self.stages.append(f"layer{i + 1}")
            self.add_module(self.stages[-1], stage)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(channels, num_classes, generator=generator)
        for module in self.modules():  # torchvision's initial values; batch norm starts as 1 and 0 by itself
            if isinstance(module, Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)

    def forward(self, x: Any) -> Tensor:
        y = conv_norm(self.conv1, self.bn1, x, relu=True)
        if self.maxpool is not None:
            y = self.maxpool(y)
        for stage in self.stages:
            y = getattr(self, stage)(y)
        return self.fc(self.avgpool(y).flatten(1))


def resnet18(num_classes: int = 1000, stem: str = "imagenet", generator: np.random.Generator | None = None) -> ResNet:
    """ResNet-18 (table 1). With stem="cifar" it takes 32x32 images: 11,173,962 parameters for 10 classes."""
    return ResNet((2, 2, 2, 2), num_classes, stem, generator=generator)


BUILDERS = {"resnet18": resnet18}


def build(name: str, **settings: Any) -> ResNet:
    """The model of a name. Raises ArgumentError for an unknown one."""
    if name not in BUILDERS:
        raise ArgumentError(f"unknown model {name!r}; there are {', '.join(BUILDERS)}")
    return BUILDERS[name](**settings)
