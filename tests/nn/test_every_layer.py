"""What every layer must do, for the layers that stand beside PyTorch's in test_layers.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor, gradcheck, nn
from tests.helpers import LAYOUTS, f32_errors, laid_out
from tests.nn.test_layers import PAIRS

CONTAINERS = {nn.Module, nn.Sequential, getattr(nn, "ModuleList", None)}
each_layer = pytest.mark.parametrize("name", PAIRS)
in_both_modes = pytest.mark.parametrize("training", [True, False])


def made(name: str, training: bool = False, dtype: str = "float64") -> tuple[nn.Module, np.ndarray]:
    """A layer whose parameters and statistics are no ones and zeros, and an input away from kinks and ties."""
    make, _, shape = PAIRS[name]
    rng = np.random.default_rng(3)
    layer = make().to("float64").train(training)
    for state in (*layer.parameters(), *layer.buffers()):
        if state.dtype.kind == "f":
            state.data = rng.uniform(0.5, 1.5, state.shape) * rng.choice([-1, 1] if state.requires_grad else [1])
    x = (rng.permutation(np.prod(shape)) - np.prod(shape) // 2 + 0.5).reshape(shape) / 20
    return layer.to(dtype), x.astype(dtype)


def run(layer: nn.Module, x: np.ndarray) -> list[np.ndarray]:
    """The output, and the gradients of the input and of the parameters, for a fixed gradient of the output."""
    layer.zero_grad()
    tensor = Tensor(x, requires_grad=True)
    y = layer(tensor)
    y.backward(np.random.default_rng(4).standard_normal(y.shape).astype(y.dtype))
    return [y.data, tensor.grad.data, *(p.grad.data for p in layer.parameters())]


def test_every_layer_stands_beside_pytorchs() -> None:
    layers = {v for v in vars(nn).values() if isinstance(v, type) and issubclass(v, nn.Module)}
    losses = {layer for layer in layers if layer.__name__.endswith("Loss")}
    assert layers - losses - CONTAINERS == {type(made(name)[0]) for name in PAIRS}


@in_both_modes
@each_layer
def test_gradients_are_those_of_finite_differences(name: str, training: bool) -> None:
    layer, x = made(name, training)
    names = [n for n, _ in layer.named_parameters()]

    def fn(x: Tensor, *parameters: Tensor) -> Tensor:
        vars(layer)["_parameters"].update(zip(names, parameters, strict=True))
        return layer(x)

    gradcheck(fn, [x, *(p.data for p in layer.parameters())])


@pytest.mark.parametrize("layout", LAYOUTS)
@in_both_modes
@each_layer
def test_memory_layout_does_not_matter(name: str, training: bool, layout: str) -> None:
    x = laid_out(made(name)[1], layout)
    for got, want in zip(run(made(name, training)[0], x), run(made(name, training)[0], x.copy(order="C")), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-13)


@in_both_modes
@each_layer
def test_empty_batch(name: str, training: bool) -> None:
    layer, x = made(name, training)
    statistics = {n: b.data.copy() for n, b in layer.named_buffers() if b.dtype.kind == "f"}
    y, *gradients = run(layer, x[:0])
    assert y.shape == (0, *run(made(name)[0], x)[0].shape[1:])
    assert not any(g.any() for g in gradients)
    for n, b in layer.named_buffers():
        np.testing.assert_array_equal(b.data, statistics.get(n, b.data))


@in_both_modes
@each_layer
def test_float32_stays_float32_and_is_near_float64(name: str, training: bool) -> None:
    exact, x = made(name, training)
    x = x.astype(np.float32).astype(np.float64)
    for p in exact.parameters():
        p.data = p.data.astype(np.float32).astype(np.float64)
    want, got = run(exact, x), run(made(name, training, "float32")[0], x.astype(np.float32))
    for g, w in zip(got, want, strict=True):
        assert g.dtype == np.float32
        assert not w.any() or f32_errors(g, w)[0] <= 1e-5  # Dropout of all leaves zeros


@in_both_modes
@each_layer
def test_float16_stays_float16(name: str, training: bool) -> None:
    for g, w in zip(run(*made(name, training, "float16")), run(*made(name, training)), strict=True):
        assert g.dtype == np.float16
        assert np.max(np.abs(g - w)) <= 0.02 * np.max(np.abs(w))  # the weights were rounded, too


@each_layer
def test_state_survives_a_round_trip(name: str) -> None:
    layer, x = made(name)
    twin: Any = PAIRS[name][0]().to("float64").eval()
    twin.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(twin(Tensor(x)).data, layer(Tensor(x)).data)
