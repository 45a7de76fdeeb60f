"""Cross-entropy's CUDA kernels against the portable ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from minires import Tensor, kernels
from minires.nn import functional as F
from tests.cuda import emulator
from tests.cuda.test_norm import placed
from tests.helpers import TOLERANCES

TOLERANCE = TOLERANCES["cross_entropy"]
SHAPES = [(1, 1), (1, 10), (9, 1), (17, 10), (8, 33), (3, 32), (5, 1000), (257, 7)]  # some with a last block not full
ON_GPU = {"cross_entropy": "cuda", "cross_entropy_grad": "cuda"}
Arrays = dict[str, Any]


def drawn(shape: tuple[int, int], spread: float = 3.0, scaled: bool = False) -> Arrays:
    rng, (n, c) = np.random.default_rng(0), shape
    scale = rng.uniform(0.5, 2, n).astype(np.float32)
    scale[1::3] = 0
    return {
        "gy": rng.standard_normal(n).astype(np.float32), "z": (spread * rng.standard_normal(shape)).astype(np.float32),
        "target": rng.integers(0, c, n), "scale": scale if scaled else None,
    }  # fmt: skip


def results(gy: Any, z: Any, target: Any, scale: Any) -> tuple[Any, Any]:
    return kernels.cross_entropy(z, target, scale), kernels.cross_entropy_grad(gy, z, target, scale)


def on_device(cupy: Any, given: Arrays) -> list[np.ndarray]:
    """Losses and gradients by the CUDA kernels."""
    with kernels.use(**ON_GPU):
        made = results(**{name: None if a is None else placed(cupy, a) for name, a in given.items()})
    return [array.get() for array in made]


def portable(given: Arrays) -> tuple[np.ndarray, np.ndarray]:
    with kernels.use("portable"), kernels.quiet():
        return results(**given)


def in_float64(given: Arrays) -> Arrays:
    return {name: a.astype(np.float64) if name != "target" and a is not None else a for name, a in given.items()}


def assert_twins(got: list[np.ndarray], given: Arrays) -> None:
    """Entry by entry what the portable kernels make of the same numbers; NaN and infinities are where theirs are."""
    for array, want in zip(got, portable(given), strict=True):
        assert array.dtype == want.dtype == np.float32
        np.testing.assert_allclose(array, want, rtol=TOLERANCE.f32_max, atol=np.finfo(np.float32).tiny)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("spread", [0, 0.01, 3, 1e4])
@pytest.mark.parametrize("shape", SHAPES)
def test_results(cupy: Any, shape: tuple[int, int], spread: float, scaled: bool) -> None:
    given = drawn(shape, spread, scaled)
    got = on_device(cupy, given)
    assert_twins(got, given)
    if spread < 10:  # else differences from the maximum lose digits before they are exponents
        for array, want in zip(got, portable(in_float64(given)), strict=True):
            np.testing.assert_allclose(array, want, rtol=TOLERANCE.f32_max)


@pytest.mark.parametrize("place", [0, 5, 31, 32, 40])
def test_one_logit_far_above_the_others(cupy: Any, place: int) -> None:
    """What the others leave of its loss and gradient is not rounded away, whichever thread has which of them."""
    given = drawn((41, 41))
    given["z"][:, place] += 40
    given["target"] = np.arange(41)
    got = on_device(cupy, given)
    assert 0 < got[0][place] < 1e-12
    assert 0 < abs(got[1][place, place]) < 1e-12
    assert_twins(got, given)


@pytest.mark.parametrize("spread", [0, 3])
@pytest.mark.parametrize("shape", [(4, 1), (4, 10), (4, 70)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite(cupy: Any, shape: tuple[int, int], value: float, spread: float) -> None:
    """In one place of a row, in two, in all; the last row has none."""
    given = drawn(shape, spread)
    given["z"][0, shape[1] // 2] = value
    given["z"][1, [0, -1]] = value
    given["z"][2] = value
    given["target"] = np.array([shape[1] // 2, shape[1] // 3, 0, 0])
    assert_twins(on_device(cupy, given), given)


@pytest.mark.parametrize("label", [-(1 << 40), -100, -1, 10, 11, 1 << 32])
def test_a_label_that_is_none(cupy: Any, label: int) -> None:
    """Its loss and its row are NaN, or 0 where its scale is; the other rows are as they were."""
    given = drawn((17, 10), scaled=True)
    wrong = {**given, "target": given["target"].copy()}
    wrong["target"][[3, 4, 15]] = label
    assert not given["scale"][4]
    rest = np.setdiff1d(np.arange(17), [3, 15])
    for good, bad in zip(on_device(cupy, given), on_device(cupy, wrong), strict=True):
        assert np.isnan(bad[[3, 15]]).all()
        np.testing.assert_array_equal(bad[rest], good[rest])
    without = on_device(cupy, {**wrong, "scale": None})
    assert all(np.isnan(array[[3, 4, 15]]).all() for array in without)


def test_a_scale_of_0_hides_what_is_not_finite(cupy: Any) -> None:
    given = drawn((17, 10), scaled=True)
    given["z"][[1, 4], 2] = np.nan, np.inf
    for array in on_device(cupy, given):
        np.testing.assert_array_equal(array[1::3], 0)


@pytest.mark.parametrize("schedule", emulator.SCHEDULES)
@pytest.mark.parametrize("shape", [(17, 10), (5, 1000)])
def test_each_schedule_gives_the_same(emulated: Counter[str], shape: tuple[int, int], schedule: str) -> None:
    import cupy

    given = drawn(shape, scaled=True)
    first = [array.tobytes() for array in on_device(cupy, given)]
    with emulator.scheduled(schedule, 1):
        assert [array.tobytes() for array in on_device(cupy, given)] == first


def test_what_each_launches(emulated: Counter[str]) -> None:
    """Without being told to: its own kernel, nothing that waits or comes from the host; the gradient may be a view."""
    import cupy

    given = drawn((9, 10), scaled=True)
    z, target, scale = (cupy.asarray(given[name]) for name in ("z", "target", "scale"))
    gy = cupy.broadcast_to(cupy.full((1,), 0.5, np.float32), (9,))
    emulated.clear()
    got = kernels.cross_entropy_grad(gy, z, target, scale)
    kernels.cross_entropy(z, target, None)
    assert emulated == {"launch": 2, "launch of cross_entropy": 1, "launch of cross_entropy_grad": 1}
    given["gy"] = np.full(9, 0.5, np.float32)
    np.testing.assert_array_equal(got.get(), on_device(cupy, given)[1])


def test_what_stays_portable(emulated: Counter[str]) -> None:
    """Labels of another type, float64, no rows."""
    import cupy

    given = drawn((9, 10))
    z, target = given["z"], given["target"]
    want = portable(given)[0]
    for logits, labels in ((z, target.astype(np.int32)), (z.astype(np.float64), target), (z[:0], target[:0])):
        loss = kernels.cross_entropy(cupy.asarray(logits), cupy.asarray(labels), None)
        np.testing.assert_allclose(loss.get(), want[: len(logits)], rtol=1e-5)
    assert not emulated["launch"]


@pytest.mark.parametrize("label", [-1, 5, 1 << 40])
@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.1}, {"weight": [1, 2, 3, 4, 5.0]}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
def test_a_label_that_is_no_class_makes_any_loss_nan(
    cupy: Any, rng: np.random.Generator, loss: Any, dtype: str, settings: dict[str, Any], label: int
) -> None:
    """On a GPU, where nobody looks at labels; its row of the gradient too. The others' are as they were."""
    if loss is F.nll_loss and "label_smoothing" in settings:
        return
    settings = {k: Tensor(np.array(v, dtype)).to("cuda") if k == "weight" else v for k, v in settings.items()}
    z, good = rng.standard_normal((4, 5)).astype(dtype), np.array([0, 4, -100, 2])
    losses, gradients = [], []
    for wrong in (2, label):
        x = Tensor(z, requires_grad=True).to("cuda").detach().requires_grad_(True)
        target = Tensor(np.array([*good[:3], wrong])).to("cuda")
        y = loss(x, target, reduction="none", **settings)
        y.sum().backward()
        losses.append(y.detach().to("cpu").numpy())
        gradients.append(x.grad.to("cpu").numpy())
        assert np.isnan(loss(x, target, **settings).item()) == (wrong == label)
    np.testing.assert_array_equal(losses[0][:3], losses[1][:3])
    np.testing.assert_array_equal(gradients[0][:3], gradients[1][:3])
    assert losses[0][2] == 0
    assert np.isnan(losses[1][3])
    assert np.isnan(gradients[1][3]).any()
