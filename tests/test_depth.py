"""Responses and gradients of each layer, beside nets that are put together here without any fusion, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor, depth, models, nn
from minires.errors import ArgumentError
from minires.models import BasicBlock, Bottleneck, PreActBasicBlock, ResNet
from minires.nn import functional as F

WIDTHS = (4, 6)


def net(rng: np.random.Generator, block: type = BasicBlock, **settings: Any) -> ResNet:
    """Two blocks, with random numbers for batch norm's weights and biases, too."""
    model = ResNet((1, 1), 10, widths=WIDTHS, generator=rng, block=block, **settings).to("float64")
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and name != "fc.bias":
            parameter.data[...] = rng.uniform(0.5, 2, parameter.shape)
    return model


def normalised(y: Tensor, norm: Any) -> Tensor:
    """Batch norm by its definition."""
    if norm is None:
        return y
    mean = y.mean((0, 1, 2))
    centred = y - mean
    return centred / ((centred * centred).mean((0, 1, 2)) + norm.eps) ** 0.5 * norm.weight + norm.bias


def convolved(conv: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, conv.weight, conv.bias, stride=conv.stride, padding=conv.padding)


def by_hand(model: ResNet, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """The responses of a net of basic blocks of either version, one op after the other; and its logits."""
    first = model.layer1[0]
    pre = isinstance(first, PreActBasicBlock)
    responses = [normalised(convolved(model.conv1, images), model.bn1)]
    x = responses[-1].relu()
    for block in (first, model.layer2[0]):
        a = normalised(x, block.bn1).relu() if pre and not block.activated else x
        responses.append(normalised(convolved(block.conv1, a), block.bn2 if pre else block.bn1))
        responses.append(normalised(convolved(block.conv2, responses[-1].relu()), None if pre else block.bn2))
        y = responses[-1]
        if not block.plain:
            if block.downsample is None:
                y = y + x
            else:  # option A: every second pixel, and a zero channel before and behind
                y = y + F.pad((a if pre else x)[:, ::2, ::2], (1, 1))
        x = y if pre else y.relu()
    if pre:
        x = normalised(x, model.bn_last).relu()
    return responses, F.linear(x.mean((1, 2)), model.fc.weight, model.fc.bias)


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize(
    ("block", "shortcut"), [(BasicBlock, "A"), (BasicBlock, None), (PreActBasicBlock, "A")], ids=str
)
def test_equal_to_what_is_computed_by_hand(rng, block, shortcut, batch_norm):
    model = net(rng, block, shortcut=shortcut, batch_norm=batch_norm)
    images, labels = Tensor(rng.standard_normal((5, 8, 8, 3)) + 1), Tensor(rng.integers(0, 10, 5))
    found = depth.strengths(model, images, labels)
    responses, logits = by_hand(model, images)
    F.cross_entropy(logits, labels).backward()
    layers = ["conv1"] + [f"layer{i}.0.conv{j}" for i in (1, 2) for j in (1, 2)]
    assert found.layers == layers
    np.testing.assert_allclose(found.responses, [np.std(y.data) for y in responses], rtol=1e-10)
    weights = dict(model.named_parameters())
    expected = [np.linalg.norm(weights[f"{layer}.weight"].grad.data) for layer in layers]
    np.testing.assert_allclose(found.gradients, expected, rtol=1e-8)
    assert len({f"{value:.6g}" for value in found.responses + found.gradients}) == 10


def test_the_net_stays_as_it_is(rng):
    model = net(rng).eval()
    before = {name: value.data.copy() for name, value in model.state_dict().items()}
    depth.strengths(model, Tensor(rng.standard_normal((5, 8, 8, 3))), Tensor(rng.integers(0, 10, 5)))
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.data, before[name])
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


class Other(nn.Module):
    """Names a convolution as blocks do not."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 3, generator=rng)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((1, 2))


class OtherBlock(BasicBlock):
    """A block with a convolution in a module of its own."""

    def __init__(self, in_channels: int, channels: int, stride: int, design: Any, *rest: Any) -> None:
        super().__init__(in_channels, channels, stride, design, *rest)
        self.conv1 = nn.Sequential(self.conv1)


def test_other_nets_are_refused(rng):
    images, labels = Tensor(rng.standard_normal((2, 8, 8, 3), np.float32)), Tensor(np.array([0, 1]))
    others = [Other(rng), nn.Sequential(nn.Conv2d(3, 4, 3, generator=rng), nn.BatchNorm2d(4)), models.keras_resnet34()]
    for other in others:
        with pytest.raises(ArgumentError, match=f"takes a ResNet of minires.models, not a {type(other).__name__}$"):
            depth.strengths(other, images, labels)
    with pytest.raises(ArgumentError, match=r"layer1\.0\.conv1\.0 is in a Sequential"):
        depth.strengths(net(rng, OtherBlock).to("float32"), images, labels)


def test_only_3x3_convolutions_count(rng):
    images, labels = Tensor(rng.standard_normal((2, 16, 16, 3), np.float32)), Tensor(np.array([0, 1]))
    bottlenecks = ResNet((1, 1), 10, "imagenet", WIDTHS, generator=rng, block=Bottleneck)  # 7x7 and 1x1 beside
    assert depth.strengths(bottlenecks, images, labels).layers == ["layer1.0.conv2", "layer2.0.conv2"]
    assert len(depth.strengths(models.plain20(generator=rng), images, labels).layers) == 19
