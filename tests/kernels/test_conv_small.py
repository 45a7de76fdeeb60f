"""Convolution of a few images by fixed weights: what is planned once serves again, and only where it is right."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import minires
from minires import Tensor, kernels, nn, no_grad
from minires.kernels import ConvGeometry, fixed, kept, registry
from minires.kernels.cpu import conv_small, plans
from tests.helpers import assert_f32
from tests.kernels.convolutions import CASES, STATED, Call, Convolution
from tests.kernels.test_kept import WRITES, layer

NAMES = ["small_im2col", "small_winograd2", "small_winograd4"]
SMALL_CASES = {
    name: case for name, case in CASES.items() if any(c.variant.name in NAMES for c in case.calls(case.draw()))
}


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    before = minires.get_num_threads()
    minires.set_num_threads(2)
    kept._kept.clear()
    yield
    kept._kept.clear()
    minires.set_num_threads(before)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each plan that is made, by its name."""
    made: list[str] = []

    def noted(plan: Callable[..., Any]) -> Callable[..., Any]:
        def make(*args: Any) -> Any:
            made.append(plan.__name__)
            return plan(*args)

        return make

    for plan in conv_small.plan_im2col, conv_small.plan_winograd:
        monkeypatch.setattr(conv_small, plan.__name__, noted(plan))
    return made


def small_calls(convolution: Convolution, dtype: Any = np.float32, seed: int = 0) -> list[Call]:
    calls = convolution.calls(convolution.draw(dtype, seed=seed))
    return [call for call in calls if call.variant.name in NAMES]


def check(conv: nn.Conv2d, x: np.ndarray) -> None:
    """The layer gives what it must, from its arrays as they are now."""
    x64, w64, b64 = (a.astype(np.float64) for a in (x, conv.weight.data, conv.bias.data))
    with kernels.use("portable"):
        right = minires.ops.conv2d(x64, w64, b64, padding=1).data
    assert_f32(conv(x).data, right, STATED["fast"])


def fill_scratch(value: int) -> None:
    for space in plans._free:
        space.bytes[...] = value


@pytest.mark.parametrize("case", SMALL_CASES)
def test_the_same_bits_whatever_the_scratch_memory_held(case: str) -> None:
    for call in small_calls(SMALL_CASES[case]):
        with fixed(call.args[1], 0):
            first = call()
            for value in 0xFF, 0x7F, 0:  # NaN, a large number, 0
                fill_scratch(value)
                np.testing.assert_array_equal(call(), first, err_msg=call.name)
        assert_f32(first, SMALL_CASES[case].right("conv2d", list(draw_again(case))), call.stated)


def draw_again(case: str) -> list[np.ndarray]:
    return SMALL_CASES[case].draw(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_planned_once_for_each_shape(name: str, made: list[str]) -> None:
    conv = layer(8)
    images = [np.ones((n, 9, w, 5), np.float32) for n in (1, 2) for w in (7, 14)]
    with no_grad(), kernels.use(conv2d=name):
        for _ in range(3):
            for x in images:
                check(conv, x)
        assert len(made) == 4
        with kernels.use(conv2d="winograd2"):  # what others keep does not disturb it
            check(conv, images[0])
        check(conv, images[0])
    assert len(made) == 4


def test_all_plans_use_the_same_scratch_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "_free", [])
    with no_grad(), kernels.use(conv2d="small_im2col"):
        used = []
        for _ in range(3):
            check(layer(8), np.ones((1, 9, 14, 5), np.float32))
            used.append(plans._free[0].used)
    assert len(plans._free) == 1
    assert used[0] == used[1] == used[2] > 0


def test_each_variant_has_plans_of_its_own(made: list[str], rng: np.random.Generator) -> None:
    """Else F(4x4) would run where only F(2x2) is exact enough."""
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 12, 12, 32), (3, 3, 32, 32)))
    results = []
    with fixed(w, 0):
        for name in (*NAMES, *NAMES):
            with kernels.use(conv2d=name):
                results.append(kernels.conv2d(x, w, ConvGeometry(padding=(1, 1, 1, 1))))
    assert len(made) == 3
    for first, second in zip(results[:3], results[3:], strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(results[1], results[2])


def test_no_more_plans_than_are_useful(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "MOST", 5)
    conv = layer(8)
    with no_grad(), kernels.use(conv2d="small_im2col"):
        for width in [*range(3, 15), *range(3, 15)]:
            check(conv, np.ones((1, 9, width, 5), np.float32))
            (entry,) = kept._kept.values()
            assert len(entry[2]["plans"]) <= 5
    assert len(made) == 24


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("write", WRITES)
def test_made_anew_after_a_write(name: str, write: Callable[[nn.Conv2d, Any], None], rng: np.random.Generator) -> None:
    conv, x = layer(8), rng.standard_normal((2, 10, 14, 5)).astype(np.float32)
    with no_grad(), kernels.use(conv2d=name):
        check(conv, x)
        before = conv(x).data.copy()
        for _ in range(2):
            with kernels.use(conv2d="portable"):
                write(conv, x)
            check(conv, x)
        assert np.abs(conv(x).data - before).max() > 1e-2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [6, 40])
def test_plans_do_not_keep_the_weights(name: str, size: int) -> None:
    """With few windows the weights are turned, with many they are used as they are."""
    conv = layer(8)
    with no_grad(), kernels.use(conv2d=name):
        conv(np.ones((1, size, size, 5), np.float32))
    array = weakref.ref(conv.weight.data)
    assert kept._kept
    del conv
    gc.collect()
    assert array() is None
    assert not kept._kept


@pytest.mark.parametrize("name", NAMES)
def test_without_room_for_scratch_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "SPACE", 1000)
    monkeypatch.setattr(plans, "ZEROS", 100)
    monkeypatch.setattr(plans, "_free", [])
    with no_grad(), kernels.use(conv2d=name):
        for n in 1, 2, 1:
            check(layer(8), np.ones((n, 10, 14, 5), np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_from_several_threads_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same weights and on others, each thread in scratch memory of its own."""
    monkeypatch.setattr(plans, "_free", [])
    convolutions = [
        Convolution((1, 12, 20, 70), (3, 3, 70, 66), ConvGeometry(padding=(1, 1, 1, 1)), True, True, True)
    ] * 3
    calls = [next(c for c in small_calls(v, seed=i % 2) if c.variant.name == name) for i, v in enumerate(convolutions)]
    wants, wrong = [call() for call in calls], []

    def run(call: Call, want: np.ndarray) -> None:
        for _ in range(100):
            with fixed(call.args[1], 0):
                wrong.extend([call.name] if np.abs(call() - want).max() > 1e-5 else [])

    callers = [threading.Thread(target=run, args=given) for given in zip(calls, wants, strict=True)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong
    assert 1 <= len(plans._free) <= 3
    assert not any(space.nothing.any() for space in plans._free)


def test_an_error_amid_a_run_gives_the_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise KeyboardInterrupt

    conv, x = layer(8), np.ones((1, 10, 14, 5), np.float32)
    with no_grad(), kernels.use(conv2d="small_im2col"):
        check(conv, x)
        spaces = list(plans._free)
        with monkeypatch.context() as patch:
            patch.setattr(conv_small, "finish", broken)
            with pytest.raises(KeyboardInterrupt):
                conv(x)
        assert plans._free == spaces
        check(conv, x)


def chosen(x: np.ndarray, w: Any, padding: int = 1) -> str:
    """The variant that runs for this convolution."""
    registry["conv2d"].remembered.clear()
    minires.ops.conv2d(x, w, padding=padding)
    (choice,) = [c for c in kernels.choices() if c.kernel == "conv2d"]
    return choice.variant


def test_taken_for_few_images_and_fixed_weights_only() -> None:
    """BLAS's threads spin on for milliseconds, on the cores of the variants that share."""
    w = Tensor(np.ones((3, 3, 16, 16), np.float32), requires_grad=True)
    one, four, five = (np.ones((n, 16, 16, 16), np.float32) for n in (1, 4, 5))
    assert not chosen(one, w).startswith("small")  # it may be trained
    with no_grad():
        for x in one, four:
            with kernels.precision("exact"):
                assert chosen(x, w) in ("small_im2col", "small_winograd2")
            with kernels.precision("fast"):
                assert chosen(x, w) in NAMES
        assert not chosen(five, w).startswith("small")
        large = np.ones((1, 200, 200, 64), np.float32)
        assert not chosen(large, Tensor(np.ones((3, 3, 64, 64), np.float32))).startswith("small")


def test_a_choice_for_fixed_weights_holds_for_them_alone() -> None:
    w, x = Tensor(np.ones((3, 3, 16, 16), np.float32), requires_grad=True), np.ones((1, 16, 16, 16), np.float32)
    registry["conv2d"].remembered.clear()
    for _ in range(2):
        minires.ops.conv2d(x, w, padding=1)
        with no_grad():
            minires.ops.conv2d(x, w, padding=1)
    names = [c.variant for c in kernels.choices() if c.kernel == "conv2d"]
    assert [name.startswith("small") for name in names] == [False, True]


def test_what_they_promise() -> None:
    precisions = {v.name: v.precision for v in registry["conv2d"].variants if v.name in NAMES}
    assert precisions == {"small_im2col": "exact", "small_winograd2": "exact", "small_winograd4": "fast"}
    assert set(precisions.values()) <= set(STATED)
