"""The nets of the papers by name: He et al., 2015 (tables 1 and 6, and section 4.2), and v2: He et al., 2016."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, MiniresError
from ..nn import Module
from .keras import KerasResNet34
from .resnet import BasicBlock, Block, Bottleneck, PreActBasicBlock, PreActBottleneck, ResNet

Builder = Callable[..., Module]  # of num_classes, stem, generator, in_channels; those of ResNets of its other settings
BUILDERS: dict[str, Builder] = {}


def _builder(name: str, layers: Sequence[int], block: type[Block], widths: Sequence[int], *defaults: Any) -> Builder:
    """Register the net of a name. `defaults` are for num_classes, stem and shortcut."""
    classes, default_stem, default_shortcut = defaults

    def build(
        num_classes: int = classes,
        stem: str = default_stem,
        generator: np.random.Generator | None = None,
        **settings: Any,
    ) -> ResNet:
        if default_shortcut is None and settings.get("shortcut") is not None:
            raise ArgumentError(
                f"{name} has no shortcuts; those with shortcut={settings['shortcut']!r} are the resnets"
            )
        chosen = {"shortcut": default_shortcut, **settings}
        return ResNet(layers, num_classes, stem, widths, generator=generator, block=block, **chosen)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{name}: {'-'.join(map(str, layers))} blocks, each a {block.__name__}. Settings are ResNet's."
    BUILDERS[name] = build
    return build


def _imagenet(name: str, layers: Sequence[int], block: type[Block], shortcut: str | None = "B") -> Builder:
    """Table 1: four stages of 64, 128, 256 and 512 channels, for images of 224x224."""
    return _builder(name, layers, block, (64, 128, 256, 512), 1000, "imagenet", shortcut)


def _cifar(name: str, blocks: int, block: type[Block], shortcut: str | None = "A") -> Builder:
    """Section 4.2: three stages of 16, 32 and 64 channels for images of 32x32; 6n + 2 layers, or 9n + 2."""
    return _builder(name, (blocks,) * 3, block, (16, 32, 64), 10, "cifar", shortcut)


resnet18 = _imagenet("resnet18", (2, 2, 2, 2), BasicBlock)
resnet34 = _imagenet("resnet34", (3, 4, 6, 3), BasicBlock)
resnet50 = _imagenet("resnet50", (3, 4, 6, 3), Bottleneck)
resnet101 = _imagenet("resnet101", (3, 4, 23, 3), Bottleneck)
resnet152 = _imagenet("resnet152", (3, 8, 36, 3), Bottleneck)

resnet20 = _cifar("resnet20", 3, BasicBlock)
resnet32 = _cifar("resnet32", 5, BasicBlock)
resnet44 = _cifar("resnet44", 7, BasicBlock)
resnet56 = _cifar("resnet56", 9, BasicBlock)
resnet110 = _cifar("resnet110", 18, BasicBlock)
resnet1202 = _cifar("resnet1202", 200, BasicBlock)

plain18 = _imagenet("plain18", (2, 2, 2, 2), BasicBlock, None)
plain34 = _imagenet("plain34", (3, 4, 6, 3), BasicBlock, None)
plain20 = _cifar("plain20", 3, BasicBlock, None)
plain32 = _cifar("plain32", 5, BasicBlock, None)
plain44 = _cifar("plain44", 7, BasicBlock, None)
plain56 = _cifar("plain56", 9, BasicBlock, None)
plain110 = _cifar("plain110", 18, BasicBlock, None)

preact_resnet18 = _imagenet("preact_resnet18", (2, 2, 2, 2), PreActBasicBlock)
preact_resnet34 = _imagenet("preact_resnet34", (3, 4, 6, 3), PreActBasicBlock)
preact_resnet50 = _imagenet("preact_resnet50", (3, 4, 6, 3), PreActBottleneck)
preact_resnet101 = _imagenet("preact_resnet101", (3, 4, 23, 3), PreActBottleneck)
preact_resnet152 = _imagenet("preact_resnet152", (3, 8, 36, 3), PreActBottleneck)
preact_resnet20 = _cifar("preact_resnet20", 3, PreActBasicBlock)
preact_resnet32 = _cifar("preact_resnet32", 5, PreActBasicBlock)
preact_resnet44 = _cifar("preact_resnet44", 7, PreActBasicBlock)
preact_resnet56 = _cifar("preact_resnet56", 9, PreActBasicBlock)
preact_resnet110 = _cifar("preact_resnet110", 18, PreActBasicBlock)
preact_resnet164 = _cifar("preact_resnet164", 18, PreActBottleneck, "B")
preact_resnet1001 = _cifar("preact_resnet1001", 111, PreActBottleneck, "B")


def keras_resnet34(
    num_classes: int = 1000,
    stem: str = "imagenet",
    generator: np.random.Generator | None = None,
    *,
    in_channels: int = 3,
    softmax: bool = False,
) -> KerasResNet34:
    """The Keras tutorial's ResNet-34 as published, faults and all."""
    return KerasResNet34(num_classes, stem, in_channels, generator, softmax=softmax)


def keras_resnet34_corrected(
    num_classes: int = 1000,
    stem: str = "imagenet",
    generator: np.random.Generator | None = None,
    *,
    in_channels: int = 3,
    softmax: bool = False,
) -> KerasResNet34:
    """The Keras tutorial's ResNet-34 as it was meant."""
    return KerasResNet34(num_classes, stem, in_channels, generator, corrected=True, softmax=softmax)


BUILDERS |= {"keras_resnet34": keras_resnet34, "keras_resnet34_corrected": keras_resnet34_corrected}


def build(name: str, **settings: Any) -> Module:
    """The model of a name. Raises ArgumentError for an unknown one, and for settings that it does not have."""
    if name not in BUILDERS:
        import difflib

        near = difflib.get_close_matches(name, BUILDERS, n=1)
        hint = f" (nearest: {near[0]!r})" if near else ""
        raise ArgumentError(f"unknown model {name!r}{hint}; there are {', '.join(BUILDERS)}")
    try:
        return BUILDERS[name](**settings)
    except MiniresError:
        raise
    except TypeError as error:
        raise ArgumentError(f"{name}: {error}") from error
