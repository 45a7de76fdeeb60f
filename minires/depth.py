"""What depth does to a net of convolutions: how strong responses and gradients are from layer to layer."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, NamedTuple

from .autograd import no_grad
from .errors import ArgumentError
from .models import Block, PreActBlock, ResNet
from .nn import Conv2d, Module
from .ops import cross_entropy
from .tensor import Tensor


class Strengths(NamedTuple):
    """Of each 3x3 convolution of a net, the first one first: its name, and two numbers of one batch.

    `responses` are standard deviations of its outputs, after batch norm if there is one, and before ReLU or addition
    (He et al., 2015, figure 7); `gradients` are L2 norms of the loss's gradient with respect to its weight.
    """

    layers: list[str]
    responses: list[float]
    gradients: list[float]


def strengths(model: Module, images: Tensor, labels: Tensor) -> Strengths:
    """Measure a ResNet of minires.models on images (N, H, W, C) and labels (N,).

    It is in training mode: batch norm has the batch's statistics. The loss is the mean cross-entropy. A copy of
    the net is measured, so that the net itself stays as it is. Raises ArgumentError for other nets: only in ResNet and
    its blocks do names say which batch norm follows a convolution.
    """
    if not isinstance(model, ResNet):
        raise ArgumentError(f"depth.strengths: takes a ResNet of minires.models, not a {type(model).__name__}")
    model = copy.deepcopy(model).train()
    convs: dict[str, Conv2d] = {}
    responses: dict[str, float] = {}
    for owner_name, owner in model.named_modules():
        for name, conv in owner.named_children():
            if isinstance(conv, Conv2d) and conv.kernel_size == (3, 3):
                layer = f"{owner_name}.{name}".lstrip(".")
                if not isinstance(owner, (ResNet, Block)):
                    raise ArgumentError(f"depth.strengths: {layer} is in a {type(owner).__name__}, no block of ResNets")
                convs[layer] = conv
                conv.register_forward_pre_hook(partial(_note, responses, layer, _norm_behind(owner, name)))
    loss = cross_entropy(model(images), labels)
    loss.backward()
    gradients = [_l2_norm(conv.weight.grad) for conv in convs.values()]
    return Strengths(list(convs), [responses[layer] for layer in convs], gradients)


def _norm_behind(owner: Module, name: str) -> Module | None:
    """The batch norm that takes what the convolution gives: conv1's is bn1, but bn2 where activations come first."""
    number = int(name.removeprefix("conv")) + isinstance(owner, PreActBlock)
    return getattr(owner, f"bn{number}", None)


def _note(responses: dict[str, float], layer: str, norm: Module | None, conv: Module, inputs: tuple[Any, ...]) -> None:
    """Note a convolution's response; made anew, since nets fuse batch norm, and convolution, with addition and ReLU."""
    with no_grad():
        response = conv.forward(*inputs)
        if norm is not None:
            response = norm.forward(response)
    responses[layer] = float(response.data.astype("float64").std())


def _l2_norm(gradient: Tensor | None) -> float:
    assert gradient is not None, "backward reaches every convolution"
    return float((gradient.data.astype("float64") ** 2).sum() ** 0.5)
