"""The ResNet-34 of a widely read Keras tutorial: as published, and corrected.

Its padding is TensorFlow's "same", its weights start by Glorot's rule with zero biases, Keras's default.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError
from ..nn import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Linear, MaxPool2d, Module, Sequential, conv_norm, init
from ..tensor import Tensor

LAYERS, WIDTHS = (3, 4, 6, 3), (64, 128, 256, 512)


class KerasUnit(Module):
    """As published: y = relu(conv1x1(maxpool(x))) + relu(conv3x3(relu(conv3x3(x)))), pooling and first 3x3 of stride 2.

    So every unit halves the image, though a comment there says that the size stays, and nothing follows the sum.
    """

    def __init__(self, in_channels: int, channels: int, generator: np.random.Generator | None) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, channels, 3, 2, padding="same", generator=generator)
        self.conv2 = Conv2d(channels, channels, 3, padding="same", generator=generator)
        self.maxpool = MaxPool2d(3, 2, padding="same")
        self.shortcut = Conv2d(in_channels, channels, 1, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x, relu=True), relu=True)
        return self.shortcut(self.maxpool(x), relu=True) + y


class CorrectedUnit(Module):
    """Corrected: y = relu(F(x) + shortcut(x)), F two 3x3 convolutions with batch norm; halved where stride is 2.

    There the shortcut is max pooling and a 1x1 convolution with batch norm; elsewhere it is x.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, generator: np.random.Generator | None) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, channels, 3, stride, padding="same", bias=False, generator=generator)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = Conv2d(channels, channels, 3, padding="same", bias=False, generator=generator)
        self.bn2 = BatchNorm2d(channels)
        self.shortcut = None
        if stride > 1:
            projection = Conv2d(in_channels, channels, 1, bias=False, generator=generator)
            self.shortcut = Sequential(MaxPool2d(3, stride, padding="same"), projection, BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = conv_norm(self.conv1, self.bn1, x, relu=True)
        return conv_norm(self.conv2, self.bn2, y, add=x if self.shortcut is None else self.shortcut(x), relu=True)


class KerasResNet34(Module):
    """The tutorial's net: 16 units in four stages, for images (N, H, W, in_channels), there 224x224x3 in 1000 classes.

    As published (corrected=False) the sixth unit leaves a map of 1x1: the ten after it see one pixel and padding, as
    `minires summary keras_resnet34 --input 224x224x3` shows. Corrected, only the first units of stages two to four
    halve the image, others pass x on unchanged, and there is batch norm, and ReLU after the sum. The tutorial ends in
    softmax; here that is the loss's, and `softmax=True` puts it back: probabilities then, instead of logits. The stem
    "cifar" is a 3x3 convolution of stride 1 without pooling.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        stem: str = "imagenet",
        in_channels: int = 3,
        generator: np.random.Generator | None = None,
        *,
        corrected: bool = False,
        softmax: bool = False,
    ) -> None:
        super().__init__()
        if stem not in ("cifar", "imagenet"):
            raise ArgumentError(f"KerasResNet34: stem must be 'cifar' or 'imagenet', not {stem!r}")
        self.softmax = softmax
        size, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.conv1 = Conv2d(in_channels, 64, size, stride, "same", bias=not corrected, generator=generator)
        self.bn1 = BatchNorm2d(64) if corrected else None
        self.maxpool = MaxPool2d(3, 2, padding="same") if stem == "imagenet" else None
        units: list[Module] = []
        channels = 64
        for i, (count, width) in enumerate(zip(LAYERS, WIDTHS, strict=True)):
            for j in range(count):
                if corrected:
                    units.append(CorrectedUnit(channels, width, 2 if i > 0 and j == 0 else 1, generator))
                else:
                    units.append(KerasUnit(channels, width, generator))
                channels = width
        self.units = Sequential(*units)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(channels, num_classes, generator=generator)
        for module in self.modules():
            if isinstance(module, (Conv2d, Linear)):
                init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    init.zeros_(module.bias)

    def forward(self, x: Any) -> Tensor:
        y = conv_norm(self.conv1, self.bn1, x, relu=True)
        y = self.units(y if self.maxpool is None else self.maxpool(y))
        y = self.fc(self.avgpool(y).flatten(1))
        return ops.softmax(y, dim=1) if self.softmax else y
