"""Transformed weights are kept while nothing writes to the weights, and never longer."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import minires
from minires import Tensor, kernels, nn, no_grad, ops, optim
from minires.kernels import kept
from minires.kernels.cpu import conv_winograd, tiles

CHANNELS = {"by tiles": 8, "by channel": 160}  # more channels than tiles: their weights are transformed in parts


@pytest.fixture(autouse=True)
def winograd() -> Iterator[None]:
    before = minires.get_num_threads()
    minires.set_num_threads(2)
    kept._kept.clear()
    with kernels.use(conv2d="winograd2", conv2d_grad_input="winograd4", conv2d_grad_weight="winograd2"):
        yield
    minires.set_num_threads(before)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by one with each transform of weights."""
    made: list[Any] = []

    def transformed(*args: Any) -> Any:
        made.append(args)
        return tiles.transformed(*args)

    monkeypatch.setattr(conv_winograd, "transformed", transformed)
    return made


def layer(channels: int = 8, seed: int = 0) -> nn.Conv2d:
    return nn.Conv2d(5, channels, 3, padding=1, generator=np.random.default_rng(seed))


def right(x: Any, conv: nn.Conv2d) -> np.ndarray:
    """What the layer must give now, from copies of its arrays."""
    with kernels.use("portable"):
        return ops.conv2d(x, conv.weight.data.copy(), conv.bias.data.copy(), padding=1).data


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((2, 10, 14, 5)).astype(np.float32)


def check(conv: nn.Conv2d, x: Any) -> None:
    np.testing.assert_allclose(conv(x).data, right(x, conv), rtol=1e-4, atol=1e-5)


def transforms(made: list[Any], call: Callable[[], Any]) -> int:
    before = len(made)
    call()
    return len(made) - before


@pytest.mark.parametrize("channels", CHANNELS.values(), ids=CHANNELS)
def test_made_once_and_used_again(channels: int, x: np.ndarray, made: list[Any]) -> None:
    conv = layer(channels)
    with no_grad():
        first = transforms(made, lambda: check(conv, x))
        assert first == (2 if channels > 100 else 1)  # a part for each thread
        for _ in range(3):
            assert transforms(made, lambda: check(conv, x)) == 0
        assert transforms(made, lambda: check(conv, x[:1] * 2)) == 0  # another batch, the same weights


@pytest.mark.parametrize("channels", CHANNELS.values(), ids=CHANNELS)
def test_with_another_number_of_threads(channels: int, x: np.ndarray) -> None:
    """Weights may have been kept in other parts."""
    conv = layer(channels)
    with no_grad():
        for count in 2, 1, 3, 2:
            minires.set_num_threads(count)
            check(conv, x)


def frozen(conv: nn.Conv2d) -> nn.Conv2d:
    for parameter in conv.parameters():
        parameter.requires_grad = False
    return conv


def test_frozen_weights_are_kept_in_training(x: np.ndarray, made: list[Any]) -> None:
    conv = frozen(layer())
    head = Tensor(np.ones(8, np.float32), requires_grad=True)
    assert transforms(made, lambda: (conv(x) * head).sum().backward()) == 1
    assert transforms(made, lambda: (conv(x) * head).sum().backward()) == 0
    check(conv, x)


def step(conv: nn.Conv2d, x: Any) -> None:
    """A training step that keeps nothing: the gradients come from elsewhere."""
    for parameter in conv.parameters():
        parameter.grad = Tensor(np.ones(parameter.shape, np.float32))
    optim.SGD(conv.parameters(), lr=0.1).step()


def adam(conv: nn.Conv2d, x: Any) -> None:
    for parameter in conv.parameters():
        parameter.grad = Tensor(np.ones(parameter.shape, np.float32))
    optim.AdamW(conv.parameters(), lr=0.1).step()


def train(conv: nn.Conv2d, x: Any) -> None:
    optimizer = optim.SGD(conv.parameters(), lr=0.1)
    with minires.enable_grad():
        (conv(x) ** 2).mean().backward()
    optimizer.step()


def load(conv: nn.Conv2d, x: Any) -> None:
    conv.load_state_dict(layer(conv.weight.shape[3], seed=1).state_dict())


def scale(conv: nn.Conv2d, x: Any) -> None:
    weight = conv.weight
    weight *= 2


def assign(conv: nn.Conv2d, x: Any) -> None:
    conv.weight[1:, :, 2] = 3.0


def through_a_view(conv: nn.Conv2d, x: Any) -> None:
    weight = conv.weight.detach()
    weight -= 1


def replace_data(conv: nn.Conv2d, x: Any) -> None:
    conv.weight.data = conv.weight.data * 3


def in_place_on_data(conv: nn.Conv2d, x: Any) -> None:
    conv.weight.data *= 3


def replace_parameter(conv: nn.Conv2d, x: Any) -> None:
    conv.weight = nn.Parameter(conv.weight.data + 1)


def initialise(conv: nn.Conv2d, x: Any) -> None:
    nn.init.kaiming_normal_(conv.weight, generator=np.random.default_rng(9))


WRITES = [
    step, adam, train, load, scale, assign, through_a_view, replace_data, in_place_on_data, replace_parameter,
    initialise,
]  # fmt: skip


@pytest.mark.parametrize("channels", CHANNELS.values(), ids=CHANNELS)
@pytest.mark.parametrize("write", WRITES)
def test_made_anew_after_a_write(
    write: Callable[[nn.Conv2d, Any], None], channels: int, x: np.ndarray, made: list[Any]
) -> None:
    conv = layer(channels)
    with no_grad():
        check(conv, x)
        before = conv(x).data.copy()
        for _ in range(2):
            write(conv, x)
            assert transforms(made, lambda: check(conv, x)) >= 1
            assert transforms(made, lambda: check(conv, x)) == 0
    assert np.abs(conv(x).data - before).max() > 1e-2


def test_an_array_given_anew_may_have_changed(x: np.ndarray) -> None:
    """Nobody counts the writes to an array that no Tensor owns, or that gets a Tensor anew for each call."""
    w = layer().weight.data
    for give in np.asarray, Tensor:
        for factor in (1, 2, -0.5):
            w *= factor
            with kernels.use("portable"):
                want = ops.conv2d(x, w.copy(), padding=1).data
            np.testing.assert_allclose(ops.conv2d(x, give(w), padding=1).data, want, rtol=1e-4, atol=1e-5)


def test_training_keeps_nothing(x: np.ndarray, made: list[Any]) -> None:
    """And lets go what evaluation kept: in training it is memory for nothing, twice to four times the weights'."""
    conv = layer()
    with no_grad():
        check(conv, x)
    assert len(kept._kept) == 1
    for _ in range(2):
        y = conv(x)
        assert len(kept._kept) == 0
        y.backward(np.ones_like(y.data))
        assert len(kept._kept) == 0
    conv(x)
    assert transforms(made, lambda: conv(x)) == 1


@pytest.mark.parametrize("channels", CHANNELS.values(), ids=CHANNELS)
def test_dropped_when_the_weights_die(channels: int, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def transformed(*args: Any) -> Any:
        u = tiles.transformed(*args)
        seen.append(weakref.ref(u))
        return u

    monkeypatch.setattr(conv_winograd, "transformed", transformed)
    conv = layer(channels)
    with no_grad():
        conv(x)
    assert len(kept._kept) == 1
    assert all(u() is not None for u in seen)
    del conv
    gc.collect()
    assert len(kept._kept) == 0
    assert all(u() is None for u in seen)


def test_an_address_that_is_used_again(x: np.ndarray) -> None:
    """Arrays that die leave their id to others."""
    ids = set()
    with no_grad():
        for seed in range(20):
            conv = layer(seed=seed)
            ids.add(id(conv.weight.data))
            check(conv, x)
            del conv
    assert len(ids) < 20  # or nothing was tried


def test_models_share_nothing(x: np.ndarray, made: list[Any]) -> None:
    first, second = layer(seed=1), layer(seed=2)
    third = copy.deepcopy(first)
    with no_grad():
        for conv in first, second, third:
            check(conv, x)
        for conv in first, second, third:
            assert transforms(made, lambda conv=conv: check(conv, x)) == 0
        first.weight.data *= 2
        assert [transforms(made, lambda conv=conv: check(conv, x)) for conv in (first, second, third)] == [1, 0, 0]


def test_variants_keep_their_own(x: np.ndarray) -> None:
    conv = layer()
    with no_grad():
        for name in "winograd2", "winograd4", "winograd2", "im2col", "winograd4":
            with kernels.use(conv2d=name):
                check(conv, x)


def test_only_what_is_told_to_be_fixed_is_kept(x: np.ndarray) -> None:
    told, other, geometry = layer(5).weight.data, layer(5).weight.data, kernels.ConvGeometry(padding=(1, 1, 1, 1))
    with kernels.fixed(told, "version"):
        first = kernels.conv2d(x, other, geometry)
        other *= 2
        np.testing.assert_array_equal(kernels.conv2d(x, other, geometry), 2 * first)
    assert len(kept._kept) == 0


def test_turned_weights_are_kept_apart(x: np.ndarray) -> None:
    w = layer(5).weight.data
    geometry = kernels.ConvGeometry(padding=(1, 1, 1, 1))
    with kernels.use("portable"):
        right = kernels.conv2d(x, w, geometry), kernels.conv2d_grad_input(x, w, x.shape, geometry)
    with kernels.use(conv2d="winograd2", conv2d_grad_input="winograd2"), kernels.fixed(w, "version"):
        got = kernels.conv2d(x, w, geometry), kernels.conv2d_grad_input(x, w, x.shape, geometry)
    for g, want in zip(got, right, strict=True):
        np.testing.assert_allclose(g, want, rtol=1e-4, atol=1e-5)


def test_gradients_of_weights_that_are_kept(x: np.ndarray) -> None:
    """The turned weights of the input's gradient are not those of the forward pass."""
    conv = frozen(layer(5))
    images = Tensor(x, requires_grad=True)
    for _ in range(2):
        images.grad = None
        y = conv(images)
        y.backward(np.cos(y.data))
        with kernels.use("portable"):
            twin = Tensor(x, requires_grad=True)
            ops.conv2d(twin, conv.weight.data.copy(), padding=1).backward(np.cos(y.data))
        np.testing.assert_allclose(images.grad.data, twin.grad.data, rtol=1e-3, atol=1e-4)


def test_evaluation_between_training_steps(x: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    net = nn.Sequential(layer(8), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1, generator=rng))
    optimizer = optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    results = []
    for _ in range(4):
        y = net.train()(x)
        y.backward((y.data - 1) / len(x))
        optimizer.step()
        optimizer.zero_grad()
        with no_grad():
            results += [net.eval()(x).data, net(x).data]
            with kernels.use("portable"):
                want = copy.deepcopy(net)(x).data
        np.testing.assert_array_equal(results[-1], results[-2])
        np.testing.assert_allclose(results[-1], want, rtol=1e-3, atol=1e-4)
    assert np.abs(results[-1] - results[0]).max() > 0.01


@pytest.mark.parametrize("channels", CHANNELS.values(), ids=CHANNELS)
def test_several_callers_at_once(channels: int, x: np.ndarray) -> None:
    """Two evaluate one model, one another, and one trains a third beside them."""
    shared, own, trained = layer(channels, 1), layer(channels, 2), layer(channels, 3)
    wants = {conv: right(x, conv) for conv in (shared, own)}
    barrier, wrong = threading.Barrier(4), []

    def evaluate(conv: nn.Conv2d) -> None:
        barrier.wait(timeout=20)
        with no_grad(), kernels.use(conv2d="winograd2"):
            for _ in range(20):
                if not np.allclose(conv(x).data, wants[conv], rtol=1e-4, atol=1e-5):
                    wrong.append(conv)

    def learn() -> None:
        barrier.wait(timeout=20)
        with kernels.use(conv2d="winograd2"):
            for _ in range(10):
                train(trained, x)

    callers = [threading.Thread(target=evaluate, args=(conv,)) for conv in (shared, shared, own)]
    callers.append(threading.Thread(target=learn))
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong
    check(trained, x)
