"""Layers: their parameters and settings, beside PyTorch's layers with the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor, nn
from minires.errors import ArgumentError, ShapeError
from tests.oracle import nchw, nhwc, torch

IMAGES, ROWS = (2, 7, 6, 3), (4, 5)

# Name: (our layer, PyTorch's, shape of the input)
PAIRS: dict[str, tuple[Any, Any, tuple[int, ...]]] = {
    "Conv2d": (
        lambda: nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0)),
        lambda: torch.nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0)),
        IMAGES,
    ),
    "Conv2d without bias": (
        lambda: nn.Conv2d(3, 4, 3, bias=False),
        lambda: torch.nn.Conv2d(3, 4, 3, bias=False),
        IMAGES,
    ),
    "Conv2d of groups": (
        lambda: nn.Conv2d(4, 6, (3, 2), 2, 1, (1, 2), 2),
        lambda: torch.nn.Conv2d(4, 6, (3, 2), 2, 1, (1, 2), 2),
        (2, 7, 6, 4),
    ),
    "Conv2d of the same size": (
        lambda: nn.Conv2d(3, 3, 3, padding="same", dilation=2, groups=3),
        lambda: torch.nn.Conv2d(3, 3, 3, padding="same", dilation=2, groups=3),
        IMAGES,
    ),
    "ConvTranspose2d": (
        lambda: nn.ConvTranspose2d(3, 4, (3, 2), (2, 1), (1, 0)),
        lambda: torch.nn.ConvTranspose2d(3, 4, (3, 2), (2, 1), (1, 0)),
        IMAGES,
    ),
    "ConvTranspose2d of groups": (
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, False, 2),
        lambda: torch.nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, False, 2),
        (2, 4, 5, 4),
    ),
    "Linear": (lambda: nn.Linear(5, 3), lambda: torch.nn.Linear(5, 3), ROWS),
    "Linear without bias": (lambda: nn.Linear(5, 3, bias=False), lambda: torch.nn.Linear(5, 3, bias=False), ROWS),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(3, 1e-3, 0.3), lambda: torch.nn.BatchNorm2d(3, 1e-3, 0.3), IMAGES),
    "LayerNorm": (lambda: nn.LayerNorm(5, 0.1), lambda: torch.nn.LayerNorm(5, 0.1), ROWS),
    "LayerNorm over two axes": (lambda: nn.LayerNorm((4, 5)), lambda: torch.nn.LayerNorm((4, 5)), (3, 4, 5)),
    "LayerNorm without bias": (
        lambda: nn.LayerNorm(5, 0.1, bias=False),
        lambda: torch.nn.LayerNorm(5, 0.1, bias=False),
        ROWS,
    ),
    "LayerNorm without weight": (
        lambda: nn.LayerNorm(5, 0.1, False),
        lambda: torch.nn.LayerNorm(5, 0.1, False),
        ROWS,
    ),
    "GroupNorm": (lambda: nn.GroupNorm(3, 3, 1e-3), lambda: torch.nn.GroupNorm(3, 3, 1e-3), IMAGES),
    "GroupNorm without weight": (
        lambda: nn.GroupNorm(1, 3, 1e-5, False),
        lambda: torch.nn.GroupNorm(1, 3, 1e-5, False),
        IMAGES,
    ),
    "ReLU": (nn.ReLU, torch.nn.ReLU, IMAGES),
    "LeakyReLU": (nn.LeakyReLU, torch.nn.LeakyReLU, IMAGES),
    "LeakyReLU with a slope": (lambda: nn.LeakyReLU(0.3), lambda: torch.nn.LeakyReLU(0.3), ROWS),
    "Sigmoid": (nn.Sigmoid, torch.nn.Sigmoid, IMAGES),
    "Tanh": (nn.Tanh, torch.nn.Tanh, IMAGES),
    "SiLU": (nn.SiLU, torch.nn.SiLU, IMAGES),
    "GELU": (nn.GELU, torch.nn.GELU, IMAGES),
    "GELU by tanh": (lambda: nn.GELU("tanh"), lambda: torch.nn.GELU("tanh"), ROWS),
    "Dropout of nothing": (lambda: nn.Dropout(0), lambda: torch.nn.Dropout(0), ROWS),
    "Dropout of all": (lambda: nn.Dropout(1), lambda: torch.nn.Dropout(1), ROWS),
    "MaxPool2d": (lambda: nn.MaxPool2d(3, 2, 1), lambda: torch.nn.MaxPool2d(3, 2, 1), IMAGES),
    "MaxPool2d of its size": (lambda: nn.MaxPool2d((3, 2)), lambda: torch.nn.MaxPool2d((3, 2)), IMAGES),
    "MaxPool2d with a rest": (
        lambda: nn.MaxPool2d(2, 2, 1, 2, ceil_mode=True),
        lambda: torch.nn.MaxPool2d(2, 2, 1, 2, ceil_mode=True),
        IMAGES,
    ),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, 2, 1), lambda: torch.nn.AvgPool2d(3, 2, 1), IMAGES),
    "AvgPool2d with a rest": (
        lambda: nn.AvgPool2d(3, 2, 1, True),
        lambda: torch.nn.AvgPool2d(3, 2, 1, True),
        IMAGES,
    ),
    "AvgPool2d without padding": (
        lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        lambda: torch.nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        IMAGES,
    ),
    "AdaptiveAvgPool2d": (lambda: nn.AdaptiveAvgPool2d(1), lambda: torch.nn.AdaptiveAvgPool2d(1), IMAGES),
    "AdaptiveAvgPool2d to any size": (
        lambda: nn.AdaptiveAvgPool2d((None, 4)),
        lambda: torch.nn.AdaptiveAvgPool2d((None, 4)),
        IMAGES,
    ),
    "AdaptiveMaxPool2d": (
        lambda: nn.AdaptiveMaxPool2d((3, 4)),
        lambda: torch.nn.AdaptiveMaxPool2d((3, 4)),
        IMAGES,
    ),
    "Flatten": (nn.Flatten, torch.nn.Flatten, ROWS),
    "Unflatten": (lambda: nn.Unflatten(1, (2, 3)), lambda: torch.nn.Unflatten(1, (2, 3)), (4, 6)),
    "Identity": (lambda: nn.Identity(3, bias=False), lambda: torch.nn.Identity(3, bias=False), IMAGES),
    "Softmax": (lambda: nn.Softmax(1), lambda: torch.nn.Softmax(1), ROWS),
    "LogSoftmax": (lambda: nn.LogSoftmax(-1), lambda: torch.nn.LogSoftmax(-1), ROWS),
}


def both(x: np.ndarray) -> tuple[Tensor, Any]:
    """x as leaves of minires and PyTorch."""
    theirs = nchw(x) if x.ndim == 4 else torch.from_numpy(x.copy())
    return Tensor(x, requires_grad=True), theirs.requires_grad_()


def array(value: Any) -> np.ndarray:
    return nhwc(value) if value.ndim == 4 else value.detach().numpy()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", PAIRS)
def test_layers_equal_pytorchs(name: str, training: bool, rng: np.random.Generator) -> None:
    """Value, every gradient, state."""
    make, make_theirs, shape = PAIRS[name]
    ours, theirs = make().to("float64").train(training), make_theirs().double().train(training)
    ours.load_state_dict(theirs.state_dict(), layout="OIHW")
    x, their_x = both(rng.standard_normal(shape))
    y, their_y = ours(x), theirs(their_x)
    weights = rng.standard_normal(y.shape)
    y.backward(weights)
    their_y.backward(nchw(weights) if y.ndim == 4 else torch.from_numpy(weights))
    np.testing.assert_allclose(y.data, array(their_y), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(x.grad.data, array(their_x.grad), rtol=1e-12, atol=1e-12)
    gradients = {n: p.grad for n, p in theirs.named_parameters()}
    for n, p in ours.named_parameters():
        expected = gradients[n].permute(2, 3, 1, 0) if gradients[n].ndim == 4 else gradients[n]
        np.testing.assert_allclose(p.grad.data, expected, rtol=1e-12, atol=1e-12)
    for n, value in ours.state_dict("OIHW").items():
        np.testing.assert_allclose(value.data, theirs.state_dict()[n], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(2, 1, 1, 3), (4, 3, 5, 3)])
def test_running_statistics_equal_pytorchs(shape: tuple[int, ...], momentum: float, rng: np.random.Generator) -> None:
    """Over six steps; over two values a channel biased and unbiased variance differ by a factor of two."""
    ours = nn.BatchNorm2d(3, momentum=momentum).to("float64")
    theirs = torch.nn.BatchNorm2d(3, momentum=momentum).double()
    for step in range(6):
        x = 3 + step * rng.standard_normal(shape)
        ours(x), theirs(nchw(x))
        for name, value in theirs.state_dict().items():
            np.testing.assert_allclose(ours.state_dict()[name].data, value, rtol=1e-12, err_msg=name)
        assert ours.num_batches_tracked.item() == step + 1
        np.testing.assert_allclose(ours.eval()(x).data, nhwc(theirs.eval()(nchw(x))), rtol=1e-12, atol=1e-12)
        ours.train(), theirs.train()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("add", [True, False])
def test_fused_batch_norm_equals_its_parts(training: bool, relu: bool, add: bool, rng: np.random.Generator) -> None:
    fused, parts = nn.BatchNorm2d(3).to("float64").train(training), nn.BatchNorm2d(3).to("float64").train(training)
    x, z, weights = rng.standard_normal((3, *IMAGES))
    inputs = [(Tensor(x, requires_grad=True), Tensor(z, requires_grad=True)) for _ in range(2)]
    y = fused(inputs[0][0], add=inputs[0][1] if add else None, relu=relu)
    expected = parts(inputs[1][0])
    expected = expected + inputs[1][1] if add else expected
    expected = expected.relu() if relu else expected
    y.backward(weights)
    expected.backward(weights)
    results = [(y, expected), *((a.grad, b.grad) for a, b in zip(*inputs, strict=True))]
    results += [(a.grad, b.grad) for a, b in zip(fused.parameters(), parts.parameters(), strict=True)]
    results += list(zip(fused.buffers(), parts.buffers(), strict=True))
    for a, b in results:
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a.data, b.data, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 1, 1, 1), (1, 3)])
def test_one_value_a_channel(shape: tuple[int, ...]) -> None:
    """Refused with PyTorch's words, and nothing has moved."""
    bn = nn.BatchNorm2d(shape[-1])
    with pytest.raises(ShapeError, match="Expected more than 1 value per channel when training"):
        bn(np.ones(shape, np.float32))
    assert bn.num_batches_tracked.item() == 0
    assert (bn.running_mean.data == 0).all()
    assert bn.eval()(np.ones(shape, np.float32)).shape == shape


@pytest.mark.parametrize("name", PAIRS)
def test_an_empty_batch(name: str) -> None:
    """An empty result of the right shape, zero gradients, untouched statistics."""
    make, _, shape = PAIRS[name]
    layer = make()
    before = {n: v.data.copy() for n, v in layer.named_buffers()}
    x = Tensor(np.zeros((0, *shape[1:]), np.float32), requires_grad=True)
    y = layer(x)
    y.sum().backward()
    full = layer.eval()(np.ones(shape, np.float32))
    assert (y.shape, y.dtype) == ((0, *full.shape[1:]), np.float32)
    assert x.grad.shape == x.shape
    assert all((p.grad.data == 0).all() for p in layer.parameters())
    assert all(np.array_equal(before[n], v.data) for n, v in layer.named_buffers() if "running" in n)


REPRS = {
    "Conv2d(3, 4, kernel_size=(3, 3), stride=(2, 1), padding=(1, 1), bias=False)": lambda: nn.Conv2d(
        3, 4, 3, (2, 1), 1, bias=False
    ),
    "Linear(in_features=2, out_features=3, bias=True)": lambda: nn.Linear(2, 3),
    "BatchNorm2d(4, eps=1e-05, momentum=0.1)": lambda: nn.BatchNorm2d(4),
    "Conv2d(4, 6, kernel_size=(3, 3), stride=(1, 1), padding=same, dilation=(2, 2), groups=2, bias=True)": (
        lambda: nn.Conv2d(4, 6, 3, padding="same", dilation=2, groups=2)
    ),
    "ConvTranspose2d(3, 4, kernel_size=(2, 2), stride=(2, 2), padding=(0, 0), output_padding=(1, 1), bias=False)": (
        lambda: nn.ConvTranspose2d(3, 4, 2, 2, output_padding=1, bias=False)
    ),
    "MaxPool2d(kernel_size=2, stride=2, padding=0)": lambda: nn.MaxPool2d(2),
    "MaxPool2d(kernel_size=3, stride=1, padding=same, dilation=2, ceil_mode=True)": (
        lambda: nn.MaxPool2d(3, 1, "same", 2, ceil_mode=True)
    ),
    "AvgPool2d(kernel_size=3, stride=2, padding=1, count_include_pad=False)": (
        lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False)
    ),
    "AdaptiveMaxPool2d(output_size=(3, None))": lambda: nn.AdaptiveMaxPool2d((3, None)),
    "AdaptiveAvgPool2d(output_size=1)": lambda: nn.AdaptiveAvgPool2d(1),
    "Flatten(start_dim=1, end_dim=-1)": nn.Flatten,
    "Unflatten(dim=1, unflattened_size=(2, -1))": lambda: nn.Unflatten(1, [2, -1]),
    "Identity()": lambda: nn.Identity(3),
    "Softmax(dim=1)": lambda: nn.Softmax(1),
    "LayerNorm((5,), eps=1e-05, elementwise_affine=True, bias=False)": lambda: nn.LayerNorm(5, bias=False),
    "LayerNorm((4, 5), eps=0.1, elementwise_affine=False, bias=False)": lambda: nn.LayerNorm((4, 5), 0.1, False),
    "GroupNorm(2, 4, eps=1e-05, affine=True)": lambda: nn.GroupNorm(2, 4),
    "ReLU()": nn.ReLU,
    "LeakyReLU(negative_slope=0.01)": nn.LeakyReLU,
    "GELU(approximate='none')": nn.GELU,
    "Dropout(p=0.5)": nn.Dropout,
}


@pytest.mark.parametrize("text", REPRS)
def test_repr(text: str) -> None:
    assert repr(REPRS[text]()) == text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv2d(0, 4, 3), "Conv2d: in_channels must be an int of at least 1, not 0"),
        (lambda: nn.Conv2d(3, 1.5, 3), r"Conv2d: out_channels .* not 1\.5"),
        (lambda: nn.Conv2d(3, 4, 0), "kernel_size must be one int or two, of at least 1, not 0"),
        (lambda: nn.Conv2d(3, 4, 3, stride=0), "stride must be"),
        (lambda: nn.Conv2d(3, 4, 3, padding=-1), "padding must be"),
        (lambda: nn.Conv2d(3, 4, 3, padding="full"), "Conv2d: padding must be 'same', 'valid' or ints, not 'full'"),
        (lambda: nn.Conv2d(4, 6, 3, groups=3), "Conv2d: 3 groups cannot share 4 input and 6 output channels evenly"),
        (lambda: nn.ConvTranspose2d(4, 6, 3, groups=4), "ConvTranspose2d: 4 groups cannot share"),
        (lambda: nn.Conv2d(4, 6, 3, groups=0), "Conv2d: groups must be an int of at least 1, not 0"),
        (lambda: nn.ConvTranspose2d(4, 6, 3, output_padding=-1), "ConvTranspose2d: output_padding must be"),
        (lambda: nn.ConvTranspose2d(4, 6, 3, padding="same"), "ConvTranspose2d: padding must be one int or two"),
        (lambda: nn.Linear(3, -1), "Linear: out_features"),
        (lambda: nn.BatchNorm2d(0), "BatchNorm2d: num_features"),
        (lambda: nn.LayerNorm((3, 0)), "LayerNorm: normalized_shape must be an int of at least 1, not 0"),
        (lambda: nn.LayerNorm(()), "LayerNorm: normalized_shape"),
        (lambda: nn.GroupNorm(2, 0), "GroupNorm: num_channels"),
        (lambda: nn.GroupNorm(2, 3), "GroupNorm: num_channels 3 must be a multiple of num_groups 2"),
    ],
)
def test_settings_refused(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Conv2d(3, 4, 3), (2, 3, 8, 8), r"looks like \(N, C, H, W\)"),
        (nn.Conv2d(3, 4, 3), (8, 8, 3), "a single image"),
        (nn.Conv2d(3, 4, 3), (2, 2, 8, 3), "window of 3x3 does not fit"),
        (nn.BatchNorm2d(3), (2, 3, 8, 8), r"looks like \(N, C, H, W\)"),
        (nn.Linear(4, 2), (2, 3), r"linear: input \(2, 3\) and weight \(2, 4\) do not fit"),
        (nn.MaxPool2d(3), (2, 2, 8, 3), "window of 3x3 does not fit"),
    ],
)
def test_inputs_refused(layer: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        layer(np.zeros(shape, np.float32))


def test_momentum_none_is_the_mean_over_all_batches(rng: np.random.Generator) -> None:
    ours, theirs = nn.BatchNorm2d(3, momentum=None), torch.nn.BatchNorm2d(3, momentum=None)
    for _ in range(3):
        x = rng.standard_normal((4, 5, 6, 3)).astype(np.float32)
        ours(x)
        theirs(nchw(x))
    np.testing.assert_allclose(ours.running_mean.numpy(), theirs.running_mean.numpy(), atol=1e-6)
    np.testing.assert_allclose(ours.running_var.numpy(), theirs.running_var.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda: nn.Conv2d(3, 8, 3, 1, 1, 2, 1, True, "reflect"),  # padding_mode
        lambda: nn.ConvTranspose2d(3, 8, 3, 1, 1, 0, 1, True, 1, "zeros"),  # padding_mode
        lambda: nn.MaxPool2d(2, 2, 0, 1, True),  # return_indices
        lambda: nn.AvgPool2d(2, 2, 0, False, True, 3),  # divisor_override
    ],
)
def test_positions_that_mean_something_else_in_pytorch_are_refused(call: Any) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        call()


def test_batches_are_counted_in_training_alone_and_without_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at the count would wait for the GPU at each layer. A batch that was refused does not count."""
    monkeypatch.setattr(Tensor, "item", lambda self: pytest.fail("item() in a forward pass"))
    bn, images = nn.BatchNorm2d(2), np.ones((2, 3, 3, 2), np.float32)
    for training in (True, False, True):
        bn.train(training)(images)
    with pytest.raises(ShapeError):
        bn(images[:1, :1, :1])
    assert bn.num_batches_tracked.tolist() == 2
