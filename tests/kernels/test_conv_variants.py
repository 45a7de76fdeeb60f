"""Every variant of convolution beside the portable kernel in float64, where only its algebra and its indices show."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import minires
from minires import kernels, memory
from minires.errors import ArgumentError
from minires.kernels import ConvGeometry, registry
from tests.helpers import LAYOUTS, TOLERANCES, assert_f64
from tests.kernels.convolutions import CASES, KERNELS, Convolution, modules, small_blocks
from tests.strategies import layouts


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = minires.get_num_threads()
    minires.set_num_threads(2)
    yield
    minires.set_num_threads(before)


def check(convolution: Convolution, arrays: list[np.ndarray] | None = None) -> None:
    """All variants that take it give the portable kernel's results, as arrays of their own, and leave theirs alone."""
    arrays = convolution.draw() if arrays is None else arrays
    for array in arrays:
        array.flags.writeable = False
    rights = {kernel: convolution.right(kernel, arrays) for kernel in KERNELS}
    for call in convolution.calls(arrays):
        result = call()
        try:
            assert_f64(result, rights[call.kernel], call.stated)
        except AssertionError as error:
            raise AssertionError(f"{call.name}: {error}") from error
        assert result.flags.c_contiguous, call.name
        assert result.flags.writeable, call.name
        assert not any(np.shares_memory(result, a) for a in arrays), call.name


def test_the_cases_reach_every_variant() -> None:
    met = {call.name for case in CASES.values() for call in case.calls(case.draw())}
    here = [(kernel, v) for kernel in KERNELS for v in registry[kernel].variants if v.accepts.device == "cpu"]
    assert met == {f"{kernel}_{v.name}" for kernel, v in here}
    assert len(met) == 21


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_cases(case: str, count: int) -> None:
    minires.set_num_threads(count)
    check(CASES[case])


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_cases_in_small_blocks(case: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch)
    minires.set_num_threads(count)
    check(CASES[case])


channels = st.one_of(st.integers(1, 6), st.sampled_from([62, 63, 64, 65, 66]), st.integers(1, 70))
sides = st.one_of(st.integers(1, 9), st.integers(1, 40))


@st.composite
def convolutions(draw: Any) -> Convolution:
    """1x1 and 3x3 weights without stride and dilation are common: most variants are for them."""
    kh, kw = draw(st.one_of(st.sampled_from([(1, 1), (3, 3)]), st.tuples(*[st.integers(1, 5)] * 2)))
    plain = draw(st.booleans())
    steps = st.tuples(*[st.just(1) if plain else st.integers(1, 3)] * 2)
    most = draw(st.sampled_from([0, 1])) if (kh, kw) == (1, 1) else max(kh, kw)
    pads = draw(st.tuples(*[st.integers(0, min(k, most)) for k in (kh, kh, kw, kw)]))
    geometry = ConvGeometry(draw(steps), pads, draw(steps))
    x, w = (draw(st.integers(1, 5)), draw(sides), draw(sides), draw(channels)), (kh, kw)
    assume(min(geometry.output_size(x[1:3], w)) >= 1)
    return Convolution(x, (*w, x[3], draw(channels)), geometry, *draw(st.tuples(*[st.booleans()] * 3)))


@settings(max_examples=200)
@given(convolutions())
@example(Convolution((5, 40, 40, 70), (3, 3, 70, 70), ConvGeometry(padding=(2, 1, 0, 2)), True))
def test_drawn_shapes(convolution: Convolution) -> None:
    check(convolution)


@settings(max_examples=200)
@given(convolutions().filter(lambda c: math.prod(c.x) < 20_000))
def test_drawn_shapes_in_small_blocks(convolution: Convolution) -> None:
    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch)
        check(convolution)


def poison(patch: pytest.MonkeyPatch) -> list[int]:
    """Memory that was used before is full of NaN from now on. Returns a list that grows with each array."""
    taken: list[int] = []

    def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        taken.append(math.prod(shape))
        return np.full(shape, np.nan, dtype)

    patch.setattr(np, "empty", empty)
    for module in modules():
        if hasattr(module, "empty"):
            assert module.empty is memory.empty
            patch.setattr(module, "empty", empty)
    return taken


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_left_of_what_memory_held(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = poison(monkeypatch)
    check(CASES[case])
    assert len(taken) >= 2  # of each result, but for sums that begin with zeros


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_left_of_what_memory_held_before_small_blocks(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch)
    poison(monkeypatch)
    check(CASES[case])


@settings(max_examples=60)
@given(st.sampled_from(sorted(CASES)), st.tuples(layouts, layouts, layouts))
def test_any_layout_in_memory(case: str, drawn: tuple[str, ...]) -> None:
    """What the dispatcher chooses for arrays that are not contiguous gives what contiguous ones get."""
    convolution = CASES[case]
    given = [LAYOUTS[layout](a) for a, layout in zip(convolution.draw(), (*drawn, "C", "C", "C"), strict=True)]
    copies = [a.copy() for a in given]
    for kernel in KERNELS:
        result = getattr(kernels, kernel)(*convolution.args(kernel, *given))
        assert_f64(result, convolution.right(kernel, copies), TOLERANCES["gemm"])
    for array, before in zip(given, copies, strict=True):
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_forced_variant_refuses_other_layouts(kernel: str) -> None:
    for case in "3x3", "1x1":
        arrays = CASES[case].draw()
        names = [call.variant.name for call in CASES[case].calls(arrays) if call.kernel == kernel]
        assert len(names) >= 4
        for name in names:
            for i in {"conv2d": (0, 1), "conv2d_grad_input": (2, 1), "conv2d_grad_weight": (2, 0)}[kernel]:
                given = [np.asfortranarray(a) if i == k else a for k, a in enumerate(arrays)]
                args = CASES[case].args(kernel, *given)
                with kernels.use(**{kernel: name}):
                    if name == "blocked":
                        result = getattr(kernels, kernel)(*args)
                        assert_f64(result, CASES[case].right(kernel, arrays), TOLERANCES["gemm"])
                        continue
                    with pytest.raises(ArgumentError, match=f"'{name}' was forced, but takes .*not contiguous"):
                        getattr(kernels, kernel)(*args)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize(
    "convolution",
    [
        Convolution((0, 8, 9, 3), (3, 3, 3, 4), ConvGeometry(padding=(1, 1, 1, 1)), True),
        Convolution((0, 8, 9, 3), (1, 1, 3, 4), bias=True),
        Convolution((2, 0, 5, 3), (3, 3, 3, 4), ConvGeometry(padding=(2, 1, 1, 1)), True),
        Convolution((2, 5, 0, 3), (2, 2, 3, 4), ConvGeometry((2, 1), (0, 1, 1, 2))),
        Convolution((2, 5, 6, 0), (3, 3, 0, 4), ConvGeometry(padding=(1, 1, 1, 1)), True),
    ],
    ids=lambda c: f"x {c.x}, w {c.w}",
)
def test_nothing_to_convolve(convolution: Convolution, precision: str, dtype: str) -> None:
    """Batches, images and channels of none: zeros, and the bias where there is a result at all."""
    arrays = convolution.draw(dtype)
    with kernels.precision(precision):
        for kernel in KERNELS:
            result = getattr(kernels, kernel)(*convolution.args(kernel, *arrays))
            bias = {"conv2d": arrays[3], "conv2d_grad_input": arrays[4]}.get(kernel) if convolution.bias else None
            want = np.zeros(convolution.shape(kernel), dtype)
            np.testing.assert_array_equal(result, want if bias is None else want + bias)
            assert result.dtype == dtype
