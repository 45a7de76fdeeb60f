"""Residual networks, and the plain ones that they are compared with.

Version 1 is He et al., "Deep Residual Learning for Image Recognition", 2015; version 2, with activations before the
weights, is He et al., "Identity Mappings in Deep Residual Networks", 2016 ("v2" below). Attribute names, and so the
state dict's keys, are torchvision's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import ArgumentError
from ..nn import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Linear, MaxPool2d, Module, Sequential, conv_norm, init
from ..ops import pad
from ..tensor import Tensor

SHORTCUTS = ("A", "B", "C", "maxpool")
STEMS = ("cifar", "imagenet")


@dataclass(frozen=True)
class Design:
    """What all blocks of a net have in common.

    `shortcut` is what passes a block where it changes the size or the number of channels (section 3.3):
      "A"        every stride-th pixel, and zeros for the channels that are new
      "B"        a projection: a 1x1 convolution with batch norm, in version 2 without
      "C"        as B, and so at every other block
      "maxpool"  as B, behind a 3x3 max pooling that does the stride
      None       nothing passes, at any block: a plain net
    Without `batch_norm` the convolutions have biases. `stride_in_1x1` puts a bottleneck's stride where the paper has
    it, else it is in the 3x3 convolution, as in torchvision.
    """

    shortcut: str | None = "B"
    batch_norm: bool = True
    stride_in_1x1: bool = False
    generator: np.random.Generator | None = None

    def __post_init__(self) -> None:
        if self.shortcut not in (*SHORTCUTS, None):
            raise ArgumentError(f"ResNet: shortcut must be {_or(SHORTCUTS)}, or None, not {self.shortcut!r}")

    def conv(self, in_channels: int, channels: int, size: int, stride: int = 1) -> Conv2d:
        bias = not self.batch_norm
        return Conv2d(in_channels, channels, size, stride, padding=size // 2, bias=bias, generator=self.generator)

    def norm(self, channels: int) -> BatchNorm2d | None:
        return BatchNorm2d(channels) if self.batch_norm else None

    def downsample(self, in_channels: int, channels: int, stride: int, norm: bool = True) -> Module | None:
        """The module on the shortcut, its projection with batch norm or without; None where there is none."""
        same = stride == 1 and in_channels == channels
        if self.shortcut is None or (same and self.shortcut != "C"):
            return None
        if self.shortcut == "A":
            return ZeroPad(channels - in_channels, stride)
        pool = self.shortcut == "maxpool" and stride > 1
        layers: dict[str, Module | None] = {"pool": MaxPool2d(3, stride, padding=1)} if pool else {}
        layers["0"] = self.conv(in_channels, channels, 1, 1 if pool else stride)
        layers["1"] = self.norm(channels) if norm else None
        return Sequential({name: layer for name, layer in layers.items() if layer is not None})


class ZeroPad(Module):
    """Every stride-th pixel of x (N, H, W, C), and `new` more channels of zeros, half of them before those of x."""

    def __init__(self, new: int, stride: int) -> None:
        super().__init__()
        if new < 0:
            raise ArgumentError(
                f"ResNet: shortcut 'A' adds channels of zeros, and takes none away: there are {-new} less"
            )
        self.new, self.stride = new, stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :: self.stride, :: self.stride] if self.stride > 1 else x
        return pad(x, (self.new // 2, self.new - self.new // 2))

    def extra_repr(self) -> str:
        return f"{self.new}, stride={self.stride}"


class Block(Module):
    """A few convolutions, and a shortcut past them. Its output has channels * expansion channels."""

    expansion: ClassVar[int] = 1
    last_norm: ClassVar[str] = "bn2"  # whose output is added to the shortcut
    downsample: Module | None  # assigned last, as in torchvision: the state dict has its order

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.plain = design.shortcut is None

    def shortcut(self, x: Tensor) -> Tensor | None:
        """What is added to the convolutions' output."""
        if self.plain:
            return None
        return x if self.downsample is None else self.downsample(x)


class BasicBlock(Block):
    """y = relu(F(x) + shortcut(x)), F two 3x3 convolutions, each with batch norm (figure 2)."""

    def __init__(self, in_channels: int, channels: int, stride: int, design: Design) -> None:
        super().__init__(design)
        self.conv1, self.bn1 = design.conv(in_channels, channels, 3, stride), design.norm(channels)
        self.conv2, self.bn2 = design.conv(channels, channels, 3), design.norm(channels)
        self.downsample = design.downsample(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = conv_norm(self.conv1, self.bn1, x, relu=True)  # bn1(conv1(x), relu=True): batch norm and ReLU in one op
        return conv_norm(self.conv2, self.bn2, y, add=self.shortcut(x), relu=True)


class Bottleneck(Block):
    """y = relu(F(x) + shortcut(x)), F a 3x3 convolution between two of 1x1, which reduce and restore (figure 5)."""

    expansion, last_norm = 4, "bn3"

    def __init__(self, in_channels: int, channels: int, stride: int, design: Design) -> None:
        super().__init__(design)
        outputs = self.expansion * channels
        first, second = (stride, 1) if design.stride_in_1x1 else (1, stride)
        self.conv1, self.bn1 = design.conv(in_channels, channels, 1, first), design.norm(channels)
        self.conv2, self.bn2 = design.conv(channels, channels, 3, second), design.norm(channels)
        self.conv3, self.bn3 = design.conv(channels, outputs, 1), design.norm(outputs)
        self.downsample = design.downsample(in_channels, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = conv_norm(self.conv1, self.bn1, x, relu=True)
        y = conv_norm(self.conv2, self.bn2, y, relu=True)
        return conv_norm(self.conv3, self.bn3, y, add=self.shortcut(x), relu=True)


class PreActBlock(Block):
    """y = F(a) + shortcut, with a = relu(batch norm(x)), and no activation after the sum (v2, figure 1b).

    The shortcut is x itself; where the shape changes it is made of a, by a projection without batch norm. The first
    block of a net, `activated`, gets its a from the stem, and both paths start there (v2, section 5).
    """

    def __init__(self, in_channels: int, design: Design, activated: bool) -> None:
        super().__init__(design)
        self.bn1 = None if activated else design.norm(in_channels)
        self.activated = activated

    def activate(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """a, and what is added to F(a)."""
        a = x if self.activated else (x.relu() if self.bn1 is None else self.bn1(x, relu=True))
        return a, self.shortcut(x if self.downsample is None else a)


class PreActBasicBlock(PreActBlock):
    """PreActBlock whose F is a 3x3 convolution, batch norm, ReLU, and another 3x3 convolution."""

    def __init__(self, in_channels: int, channels: int, stride: int, design: Design, activated: bool = False) -> None:
        super().__init__(in_channels, design, activated)
        self.conv1, self.bn2 = design.conv(in_channels, channels, 3, stride), design.norm(channels)
        self.conv2 = design.conv(channels, channels, 3)
        self.downsample = design.downsample(in_channels, channels, stride, norm=False)

    def forward(self, x: Tensor) -> Tensor:
        a, shortcut = self.activate(x)
        return self.conv2(conv_norm(self.conv1, self.bn2, a, relu=True), add=shortcut)


class PreActBottleneck(PreActBlock):
    """PreActBlock whose F is convolutions of 1x1, 3x3 and 1x1, with batch norm and ReLU between them."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, design: Design, activated: bool = False) -> None:
        super().__init__(in_channels, design, activated)
        outputs = self.expansion * channels
        first, second = (stride, 1) if design.stride_in_1x1 else (1, stride)
        self.conv1, self.bn2 = design.conv(in_channels, channels, 1, first), design.norm(channels)
        self.conv2, self.bn3 = design.conv(channels, channels, 3, second), design.norm(channels)
        self.conv3 = design.conv(channels, outputs, 1)
        self.downsample = design.downsample(in_channels, outputs, stride, norm=False)

    def forward(self, x: Tensor) -> Tensor:
        a, shortcut = self.activate(x)
        y = conv_norm(self.conv1, self.bn2, a, relu=True)
        return self.conv3(conv_norm(self.conv2, self.bn3, y, relu=True), add=shortcut)


class ResNet(Module):
    """Stem, stages of blocks, global average pooling and a linear classifier; input (N, H, W, in_channels).

    `layers[i]` blocks of `widths[i]` channels make stage i; every stage but the first halves the image. The stem is a
    3x3 convolution for small images ("cifar"), or a 7x7 one of stride 2 with max pooling ("imagenet"). `block` is
    BasicBlock, Bottleneck or one of version 2; shortcut, batch_norm and stride_in_1x1 are explained at Design.
    `zero_init_residual` starts every block as its shortcut alone, the last batch norm's weight being 0 (Goyal et al.,
    "Accurate, Large Minibatch SGD", 2017, section 5.1). Raises ArgumentError for settings that do not go together.
    """

    def __init__(
        self,
        layers: Sequence[int],
        num_classes: int,
        stem: str = "cifar",
        widths: Sequence[int] = (64, 128, 256, 512),
        in_channels: int = 3,
        generator: np.random.Generator | None = None,
        *,
        block: type[Any] = BasicBlock,
        shortcut: str | None = "B",
        batch_norm: bool = True,
        stride_in_1x1: bool = False,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        if stem not in STEMS:
            raise ArgumentError(f"ResNet: stem must be {_or(STEMS)}, not {stem!r}")
        if not all(isinstance(blocks, (int, np.integer)) and blocks > 0 for blocks in layers):
            raise ArgumentError(f"ResNet: every stage has at least one block, but layers={layers}")
        if not 1 <= len(layers) <= len(widths):
            raise ArgumentError(
                f"ResNet: {len(layers)} stages in layers={layers}, but widths={widths} has {len(widths)}"
            )
        pre_activation = issubclass(block, PreActBlock)
        if zero_init_residual and (shortcut is None or not batch_norm or pre_activation):
            raise ArgumentError("ResNet: zero_init_residual is for blocks of version 1 with shortcut and batch norm")
        if stride_in_1x1 and block.expansion == 1:
            raise ArgumentError(f"ResNet: stride_in_1x1 is for bottlenecks, {block.__name__} has no 1x1 convolution")
        design = Design(shortcut, batch_norm, stride_in_1x1, generator)

        size, stride = (3, 1) if stem == "cifar" else (7, 2)
        self.conv1, self.bn1 = design.conv(in_channels, widths[0], size, stride), design.norm(widths[0])
        self.maxpool = MaxPool2d(3, stride=2, padding=1) if stem == "imagenet" else None
        channels = widths[0]
        self.stages: list[str] = []
        for i, (blocks, width) in enumerate(zip(layers, widths, strict=False)):
            stage = Sequential()
            for j in range(blocks):
                stride = 2 if i > 0 and j == 0 else 1
                activated = {"activated": True} if pre_activation and i == j == 0 else {}
                stage.append(block(channels, width, stride, design, **activated))
                channels = width * block.expansion
            self.stages.append(f"layer{i + 1}")
            self.add_module(self.stages[-1], stage)
        self.pre_activation = pre_activation
        self.bn_last = design.norm(channels) if pre_activation else None  # v2, section 5: activate the last sum, too
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(channels, num_classes, generator=generator)
        self._initialise(generator, zero_init_residual)

    def _initialise(self, generator: np.random.Generator | None, zero_init_residual: bool) -> None:
        """torchvision's initial values; batch norm starts as 1 and 0 by itself."""
        for module in self.modules():
            if isinstance(module, Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    init.zeros_(module.bias)
            elif isinstance(module, Block) and zero_init_residual:
                init.zeros_(getattr(module, module.last_norm).weight)

    def forward(self, x: Any) -> Tensor:
        y = conv_norm(self.conv1, self.bn1, x, relu=True)
        if self.maxpool is not None:
            y = self.maxpool(y)
        for stage in self.stages:
            y = getattr(self, stage)(y)
        if self.pre_activation:
            y = y.relu() if self.bn_last is None else self.bn_last(y, relu=True)
        return self.fc(self.avgpool(y).flatten(1))


def _or(names: Sequence[str]) -> str:
    return " or ".join([", ".join(map(repr, names[:-1])), repr(names[-1])])
