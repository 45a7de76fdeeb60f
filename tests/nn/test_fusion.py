"""Batch norm in a convolution's weights: the same results, and both layers wherever somebody may look."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minires
from minires import Tensor, models, nn, no_grad, optim
from minires.autograd import detect_anomaly
from minires.kernels import kept
from minires.nn import conv_norm, fusion
from minires.ops.norm import fold_batch_norm
from tests.helpers import TOLERANCES, assert_f32, assert_f64


def drawn(dtype: str = "float32", bias: bool = False, **settings: Any) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution, and a batch norm that has seen images."""
    rng = np.random.default_rng(3)
    conv = nn.Conv2d(4, 6, 3, padding=1, bias=bias, generator=rng, **settings).to(dtype)
    norm = nn.BatchNorm2d(6).to(dtype)
    with no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor[...] = rng.standard_normal(6).astype(dtype)
        norm.running_var[...] = rng.uniform(0.1, 3, 6).astype(dtype)
    return conv.eval(), norm.eval()


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((2, 7, 6, 4)).astype(np.float32)


def apart(conv: Any, norm: Any, x: Any, **what: Any) -> np.ndarray:
    """One after the other."""
    with minires.enable_grad():
        return norm(conv(x), **what).data


@pytest.fixture
def folded(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Grows with each call of fold_batch_norm, by whether it folded."""
    calls: list[bool] = []

    def fold(*args: Any) -> Any:
        result = fold_batch_norm(*args)
        calls.append(result is not None)
        return result

    monkeypatch.setattr(fusion, "fold_batch_norm", fold)
    return calls


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("settings", [{}, {"stride": 2}, {"groups": 2}, {"dilation": (1, 2)}], ids=str)
def test_gives_what_the_two_give(bias: bool, settings: dict[str, Any], x: np.ndarray, folded: list[bool]) -> None:
    conv, norm = drawn("float64", bias, **settings)
    x64 = x.astype(np.float64)
    z = np.random.default_rng(4).standard_normal(conv(x64).shape)
    with no_grad():
        for what in {}, {"relu": True}, {"add": z}, {"add": z, "relu": True}:
            assert_f64(conv_norm(conv, norm, x64, **what).data, apart(conv, norm, x64, **what), TOLERANCES["gemm"])
            conv32, norm32 = drawn("float32", bias, **settings)
            what32 = {key: value.astype(np.float32) if key == "add" else value for key, value in what.items()}
            want = apart(conv, norm, x64, **what)  # of the same draws, but for their rounding
            got = conv_norm(conv32, norm32, x, **what32).data
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert folded == [True] * 8


@pytest.mark.parametrize("ratio", [1, 1e3, 1e6])
def test_no_less_exact_than_the_two_where_the_mean_is_large(ratio: float, x: np.ndarray) -> None:
    """A convolution rounds relative to its own results; that both ways of subtracting the mean have in common."""
    (conv, norm), shifted = drawn(), (x + np.float32(ratio)).astype(np.float32)
    y = apart(conv, nn.Identity(), shifted)
    with no_grad():
        norm.running_mean[...] = y.mean((0, 1, 2))
        norm.running_var[...] = y.var((0, 1, 2)) / ratio
    conv64, norm64 = drawn("float64")
    conv64.load_state_dict(conv.state_dict())
    norm64.load_state_dict(norm.state_dict())
    right = apart(conv64, norm64, shifted.astype(np.float64))
    with no_grad():
        errors = [np.abs(v - right).max() for v in (conv_norm(conv, norm, shifted).data, apart(conv, norm, shifted))]
    assert errors[0] <= 2 * errors[1] + 1e-6


def trained(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    optimizer = optim.SGD([*conv.parameters(), *norm.parameters()], lr=0.5)
    with minires.enable_grad():
        (norm(conv(np.ones((2, 7, 6, 4), np.float32))) ** 2).mean().backward()
    optimizer.step()


def seen_more(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    norm.train()
    norm(np.random.default_rng(5).normal(9, 3, (4, 3, 3, 6)).astype(np.float32))
    norm.eval()


def loaded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    state = norm.state_dict()
    norm.load_state_dict({**state, "running_var": state["running_var"].data * 7})


def written(name: str) -> Callable[[nn.Conv2d, nn.BatchNorm2d], None]:
    def write(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        owner, _, attribute = name.partition(".")
        tensor = getattr(conv if owner == "conv" else norm, attribute)
        tensor[1:3] = tensor.data[1:3] + 2.0

    write.__name__ = name
    return write


def other_eps(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    norm.eps = 4.0


def other_padding(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    conv.padding = 2, 0


def other_buffer(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    norm.running_mean = nn.Buffer(norm.running_mean.data + 3)


def other_parameter(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    conv.weight = nn.Parameter(conv.weight.data * 3)


TENSORS = "conv.weight", "conv.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"
CHANGES = [trained, seen_more, loaded, other_eps, other_padding, other_buffer, other_parameter, *map(written, TENSORS)]


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_made_anew_after_a_change(
    change: Callable[[nn.Conv2d, nn.BatchNorm2d], None], x: np.ndarray, folded: list[bool]
) -> None:
    conv, norm = drawn(bias=True)
    with no_grad():
        before = conv_norm(conv, norm, x).data
        change(conv, norm)
        after = conv_norm(conv, norm, x).data
        np.testing.assert_allclose(after, apart(conv, norm, x), rtol=1e-4, atol=1e-5)
    assert before.shape != after.shape or np.abs(before - after).max() > 1e-2
    assert folded == [True, True]


def test_folded_once(x: np.ndarray) -> None:
    conv, norm = drawn()
    arguments = conv.weight, None, norm.running_mean, norm.running_var, norm.weight, norm.bias
    with no_grad():
        first, second = (fold_batch_norm(*arguments, norm.eps) for _ in range(2))
        other = fold_batch_norm(*arguments, 1.0)
    assert first is not None
    assert first is second
    assert other is not first
    assert [t.requires_grad for t in first] == [False, False]


def test_training_lets_go_of_what_evaluation_kept(x: np.ndarray) -> None:
    """In training mode; and where only gradients are wanted, with batch norm as in evaluation."""
    kept._kept.clear()
    for mode in (nn.Module.train, nn.Module.eval):
        net = nn.Sequential(*drawn())
        with no_grad():
            net(x)
        assert len(kept._kept) == 2  # the folded weights, and what a kernel made of them
        mode(net)
        net(x)
        gc.collect()
        assert not kept._kept


def half(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    conv.to("float16")
    norm.to("float16")


def mixed(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    conv.to("float16")


def without_weight(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    norm.weight = None


@pytest.mark.parametrize("types", [half, mixed, without_weight], ids=lambda c: c.__name__)
def test_apart_where_types_do_not_allow_it(types: Callable[..., None], x: np.ndarray, folded: list[bool]) -> None:
    conv, norm = drawn()
    types(conv, norm)
    images = x.astype(conv.weight.dtype)
    with no_grad():
        np.testing.assert_array_equal(conv_norm(conv, norm, images).data, norm(conv(images)).data)
    assert folded == [False]


def test_apart_where_a_gradient_may_be_wanted(x: np.ndarray, folded: list[bool]) -> None:
    conv, norm = drawn()
    y = conv_norm(conv, norm, x, relu=True)
    y.sum().backward()
    assert folded == [False]
    for parameter in (*conv.parameters(), *norm.parameters()):
        assert parameter.grad is not None
    np.testing.assert_array_equal(y.data, apart(conv, norm, x, relu=True))


def test_apart_in_training(x: np.ndarray, folded: list[bool]) -> None:
    conv, norm = drawn()
    norm.train()
    with no_grad():
        conv_norm(conv, norm, x)
    assert folded == []
    assert norm.num_batches_tracked.item() == 1


def test_apart_under_detect_anomaly(x: np.ndarray, folded: list[bool]) -> None:
    conv, norm = drawn()
    with no_grad(), detect_anomaly():
        np.testing.assert_array_equal(conv_norm(conv, norm, x).data, norm(conv(x)).data)
        conv.weight.data.ravel()[0] = np.nan
        with pytest.raises(minires.errors.GraphError, match=r"Conv2d.* was given a NaN"):
            conv_norm(conv, norm, x)
    assert folded == [False, False]


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_see_both(layer: int, register: str, x: np.ndarray) -> None:
    layers, seen = drawn(), []
    handle = getattr(layers[layer], register)(lambda module, *given: seen.append(module))
    with no_grad():
        first = conv_norm(*layers, x).data
        assert seen == [layers[layer]]
        handle.remove()
        np.testing.assert_allclose(conv_norm(*layers, x).data, first, rtol=1e-5, atol=1e-5)
    assert len(seen) == 1


def test_layers_derived_from_these_are_called(x: np.ndarray) -> None:
    class Doubled(nn.Conv2d):
        def forward(self, x: Any) -> Tensor:
            return super().forward(x) * 2

    class Shifted(nn.BatchNorm2d):
        def forward(self, x: Any, add: Any = None, relu: bool = False) -> Tensor:
            return super().forward(x, add, relu) + 1

    conv, norm = drawn()
    for derived, layers in (Doubled, (conv, norm)), (Shifted, (norm, conv)):
        layers[0].__class__ = derived
        with no_grad():
            np.testing.assert_array_equal(conv_norm(conv, norm, x).data, norm(conv(x)).data)


def test_in_a_sequential(x: np.ndarray, folded: list[bool]) -> None:
    conv, norm = drawn()
    other = nn.Conv2d(6, 3, 1, generator=np.random.default_rng(6))
    net = nn.Sequential(conv, norm, nn.ReLU(), other, nn.BatchNorm2d(3), nn.BatchNorm2d(3), other.__class__(3, 2, 1))
    net.eval()
    want = net(x).data
    assert folded == [False, False]
    with no_grad():
        np.testing.assert_allclose(net(x).data, want, rtol=1e-4, atol=1e-5)
    assert folded == [False, False, True, True]


def test_a_whole_net(rng: np.random.Generator, folded: list[bool]) -> None:
    """Each convolution of a ResNet-18 is followed by a batch norm."""
    net = models.resnet18(10, "cifar", generator=rng)
    x = rng.standard_normal((3, 16, 16, 3)).astype(np.float32)
    net(x)  # running statistics of its own
    net.eval()
    want = net(x).data
    folded.clear()
    with no_grad():
        got = net(x).data
    assert folded == [True] * 20
    assert_f32(got, want.astype(np.float64), TOLERANCES["gemm_fast"])
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
