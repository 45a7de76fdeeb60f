"""The same nets in PyTorch, written from the papers, with minires's attribute names: state dicts fit both ways."""

from __future__ import annotations

from typing import Any

from tests.oracle import torch

F, nn = torch.nn.functional, torch.nn


def conv(inputs: int, outputs: int, size: int, stride: int, bias: bool) -> Any:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=bias)


class Shortcut(nn.Module):
    """Options A, B and max pooling, for a change of shape; C is B at every block."""

    def __init__(self, option: str, inputs: int, outputs: int, stride: int, norm: bool, bias: bool) -> None:
        super().__init__()
        self.option, self.stride, self.new = option, stride, outputs - inputs
        if option != "A":
            at_pool = option == "maxpool" and stride > 1
            self.pool = nn.MaxPool2d(3, stride, 1) if at_pool else nn.Identity()
            self.add_module("0", conv(inputs, outputs, 1, 1 if at_pool else stride, bias))
            self.add_module("1", nn.BatchNorm2d(outputs) if norm else nn.Identity())

    def forward(self, x: Any) -> Any:
        if self.option == "A":
            zeros = x.new_zeros(len(x), self.new // 2, *x[:, :, :: self.stride, :: self.stride].shape[2:])
            return torch.cat([zeros, x[:, :, :: self.stride, :: self.stride], zeros], dim=1)
        return getattr(self, "1")(getattr(self, "0")(self.pool(x)))


class Block(nn.Module):
    """Basic or bottleneck, of version 1 or 2."""

    def __init__(
        self, inputs: int, width: int, stride: int, net: dict[str, Any], first: bool, bottleneck: bool, preact: bool
    ) -> None:
        super().__init__()
        norm, option = net["batch_norm"], net["shortcut"]
        self.option, self.preact, self.first = option, preact, first
        sizes = (1, 3, 1) if bottleneck else (3, 3)
        outputs = 4 * width if bottleneck else width
        channels = [inputs, *[width] * (len(sizes) - 1), outputs]
        self.layers = len(sizes)
        for i, size in enumerate(sizes):
            step = stride if i == (1 if bottleneck else 0) else 1
            self.add_module(f"conv{i + 1}", conv(channels[i], channels[i + 1], size, step, bias=not norm))
            normed = channels[i] if preact else channels[i + 1]
            needed = norm and not (preact and first and i == 0)
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(normed) if needed else nn.Identity())
        self.downsample = None
        if option is not None and (stride != 1 or inputs != outputs or option == "C"):
            self.downsample = Shortcut(option, inputs, outputs, stride, norm and not preact, bias=not norm)

    def forward(self, x: Any) -> Any:
        y = x
        for i in range(1, self.layers + 1):
            layer, norm = getattr(self, f"conv{i}"), getattr(self, f"bn{i}")
            if self.preact:
                if not (self.first and i == 1):
                    y = F.relu(norm(y))
                if i == 1 and self.downsample is not None:
                    x = self.downsample(y)
                y = layer(y)
            else:
                y = norm(layer(y))
                y = F.relu(y) if i < self.layers else y
        if self.option is not None:
            y = y + (self.downsample(x) if self.downsample is not None and not self.preact else x)
        return y if self.preact else F.relu(y)


class Net(nn.Module):
    def __init__(
        self,
        layers: tuple[int, ...],
        widths: tuple[int, ...],
        classes: int,
        *,
        bottleneck: bool = False,
        preact: bool = False,
        stem: str = "cifar",
        shortcut: str | None = "A",
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        size, stride = (3, 1) if stem == "cifar" else (7, 2)
        self.conv1 = conv(3, widths[0], size, stride, bias=not batch_norm)
        self.bn1 = nn.BatchNorm2d(widths[0]) if batch_norm else nn.Identity()
        self.maxpool = nn.Identity() if stem == "cifar" else nn.MaxPool2d(3, 2, 1)
        self.stages, self.preact = len(layers), preact
        channels, net = widths[0], {"batch_norm": batch_norm, "shortcut": shortcut}
        for i, (blocks, width) in enumerate(zip(layers, widths, strict=False)):
            stage = nn.Sequential()
            for j in range(blocks):
                down = 2 if i and not j else 1
                stage.append(Block(channels, width, down, net, i == j == 0, bottleneck, preact))
                channels = width * (4 if bottleneck else 1)
            self.add_module(f"layer{i + 1}", stage)
        if preact:
            self.bn_last = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Any) -> Any:
        y = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for i in range(self.stages):
            y = getattr(self, f"layer{i + 1}")(y)
        y = F.relu(self.bn_last(y)) if self.preact else y
        return self.fc(y.mean(dim=(2, 3)))


def same(x: Any, size: int, stride: int, value: float = 0.0) -> Any:
    """Pad (N, C, H, W) as TensorFlow's "same" does: the odd row and column come last."""
    pads = []
    for length in (x.shape[3], x.shape[2]):
        whole = max((-(-length // stride) - 1) * stride + size - length, 0)
        pads += [whole // 2, whole - whole // 2]
    return F.pad(x, pads, value=value)


class Keras(nn.Module):
    """The tutorial's net; `weights` are minires's state dict in PyTorch's layout."""

    def __init__(self, weights: dict[str, Any], corrected: bool, training: bool) -> None:
        super().__init__()
        self.weights, self.corrected, self.train_mode = weights, corrected, training

    def conv(self, x: Any, name: str, stride: int = 1) -> Any:
        w = self.weights[f"{name}.weight"]
        return F.conv2d(same(x, w.shape[2], stride), w, self.weights.get(f"{name}.bias"), stride)

    def norm(self, x: Any, name: str) -> Any:
        w = self.weights
        mean, var = w[f"{name}.running_mean"].clone(), w[f"{name}.running_var"].clone()
        return F.batch_norm(x, mean, var, w[f"{name}.weight"], w[f"{name}.bias"], self.train_mode)

    def pool(self, x: Any) -> Any:
        return F.max_pool2d(same(x, 3, 2, -float("inf")), 3, 2)

    def forward(self, x: Any) -> Any:
        y = self.conv(x, "conv1", 2)
        y = self.pool(F.relu(self.norm(y, "bn1") if self.corrected else y))
        unit = 0
        for stage, count in enumerate((3, 4, 6, 3)):
            for i in range(count):
                name = f"units.{unit}"
                unit += 1
                if self.corrected:
                    stride = 2 if stage and not i else 1
                    f = F.relu(self.norm(self.conv(y, f"{name}.conv1", stride), f"{name}.bn1"))
                    f = self.norm(self.conv(f, f"{name}.conv2"), f"{name}.bn2")
                    if stride == 2:
                        y = self.norm(self.conv(self.pool(y), f"{name}.shortcut.1"), f"{name}.shortcut.2")
                    y = F.relu(f + y)
                else:
                    f = F.relu(self.conv(F.relu(self.conv(y, f"{name}.conv1", 2)), f"{name}.conv2"))
                    y = F.relu(self.conv(self.pool(y), f"{name}.shortcut")) + f
        return F.linear(y.mean(dim=(2, 3)), self.weights["fc.weight"], self.weights["fc.bias"])
