"""Every op on CuPy's arrays gives what it gives on NumPy's, stays on the device, and never waits for it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires import Tensor, checkpoint, nn, ops, optim
from minires.autograd import detect_anomaly
from minires.device import to_device
from minires.errors import DeviceError, GraphError
from minires.nn import functional as F
from minires.optim import clip_grad_norm_
from tests.cuda.fake_cupy import counts
from tests.helpers import LAYOUTS, TOLERANCES, assert_f16, assert_f32, assert_f64
from tests.ops.case import Case, gradient_for
from tests.ops.cases import CASES

# How many elements a mask picks has to be known before there can be an array of them.
WAITS = {case.name for case in CASES if case.name.startswith("index-mask")}
# Whose op has constants of its own, which it uploads.
CONSTANTS = {case.name for case in CASES for part in ("weight", "image", "norm-eval") if part in case.name}

CHECKS = {"float16": assert_f16, "float32": assert_f32, "float64": assert_f64}


def on_both(case: Case, dtype: str, cupy: Any) -> tuple[list[np.ndarray], list[Any]]:
    """The case's result and gradients: on the CPU in float64, and in `dtype` on the GPU, all the time."""
    arrays = case.inputs(dtype)
    exact = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    gy = gradient_for(case.run(exact)[0]).astype(dtype)
    *uploaded, gy_uploaded = (to_device(a, "cuda") for a in (*arrays, gy))
    counts.clear()
    got = case.run(uploaded, gy_uploaded)
    assert counts["sync"] == (counts["sync by a boolean index"] if case.name in WAITS else 0), counts
    assert counts["upload"] <= (2 if case.name in CONSTANTS else 0), counts
    assert all(isinstance(g, cupy.ndarray) for g in got)
    return case.run(exact, gy.astype(np.float64)), got


@pytest.mark.parametrize("dtype", CHECKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_cpu(case: Case, dtype: str, cupy: Any) -> None:
    wanted, got = on_both(case, dtype, cupy)
    for g, want, tolerance in zip(got, wanted, case.tolerances, strict=False):
        CHECKS[dtype](g.get(), want, tolerance)


def fortran(x: Any) -> Any:
    """The same values, with the first axis contiguous."""
    return x.T.copy().T


@pytest.mark.parametrize("layout", [fortran, LAYOUTS["negative"]], ids=["fortran", "negative"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_memory_layout_does_not_matter(case: Case, layout: Any, cupy: Any) -> None:
    arrays = case.inputs(np.float32)
    exact = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    gy = gradient_for(case.run(exact)[0])
    laid = [layout(to_device(a, "cuda")) if a.ndim else to_device(a, "cuda") for a in (*arrays, gy.astype(np.float32))]
    got, wanted = case.run(laid[:-1], laid[-1]), case.run(exact, gy)
    for g, want, tolerance in zip(got, wanted, case.tolerances, strict=False):
        assert_f32(g.get(), want, tolerance)


@pytest.mark.parametrize("case", [case for case in CASES if case.batched], ids=str)
def test_empty_batch(case: Case, cupy: Any) -> None:
    arrays = [a[:0] if i in case.batched else a for i, a in enumerate(case.inputs(np.float32))]
    gy = gradient_for(case.run(arrays)[0])
    got = case.run([to_device(a, "cuda") for a in arrays], to_device(gy, "cuda"))
    for g, want in zip(got, case.run(arrays, gy), strict=True):
        np.testing.assert_array_equal(g.get(), want)
        assert g.dtype == want.dtype


def test_rows_taken_often_keep_a_nan_to_themselves(cupy: Any, rng: np.random.Generator) -> None:
    """CuPy's add.reduceat would spread it, and lose the digits of rows after a large one."""
    places, gy = rng.integers(0, 20, 300), rng.standard_normal((300, 4))
    gy[places == 3], gy[places == 7] = np.nan, 1e12
    x = Tensor(np.zeros((20, 4)), device="cuda", requires_grad=True)
    x[to_device(places, "cuda")].backward(to_device(gy, "cuda"))
    want = np.stack([gy[places == row].sum(axis=0) for row in range(20)])
    np.testing.assert_allclose(x.grad.to("cpu").numpy(), want, rtol=1e-13, atol=1e-14)


def test_moving(cupy: Any, rng: np.random.Generator) -> None:
    here = Tensor(rng.standard_normal((2, 3)).astype(np.float32), requires_grad=True)
    there = here.to("cuda")
    assert isinstance(there.data, cupy.ndarray)
    assert (there.device, there.dtype, there.requires_grad, there.is_leaf) == ("cuda:0", np.float32, True, True)
    assert there.to("cuda") is there.to("cuda:0") is there.to("auto") is there
    assert there.to("cuda", "float64").dtype == np.float64
    back = there.detach().to("cpu")
    assert isinstance(back.data, np.ndarray)
    np.testing.assert_array_equal(back.data, here.data)
    np.testing.assert_array_equal(there.detach().numpy(), here.data)
    np.testing.assert_array_equal(np.asarray(there.detach()), here.data)
    assert there.tolist() == here.tolist()


def test_reading_one_number(cupy: Any) -> None:
    x = Tensor(np.array([2.5, -1.0], np.float32), device="cuda")
    assert (x[0].item(), float(x[1]), int(x[0]), bool(x[0] > 2), f"{x[0]:.2f}") == (2.5, -1.0, 2, True, "2.50")
    assert isinstance(x.sum().data, cupy.ndarray)
    assert [0, 1, 2][x.argmax() + 1] == 1


def test_printing(cupy: Any) -> None:
    here = Tensor(np.arange(6.0, dtype=np.float32).reshape(2, 3), requires_grad=True)
    there = repr(here.to("cuda"))
    assert there.replace(", device='cuda:0'", "") == repr(here)
    assert "device='cuda:0'" in there


def writes(x: Tensor, to: str) -> Tensor:
    """x after writes of all kinds."""

    def there(array: Any) -> Any:
        return to_device(np.array(array), to)

    x += 1
    x *= Tensor(there([1.0, 2.0, 3.0]))
    x[0] = 5
    x[1, 1:] = [0.1, 0.2]
    x[2] = np.array([1.0, 2.0, 3.0])
    x[Tensor(there([3, 4]))] = Tensor(there([[7.0], [8.0]]))
    x[x > 7] = -1
    x[5:, ::2] = there([[9.0, 10.0]])
    return x


def test_writes_in_place(cupy: Any, rng: np.random.Generator) -> None:
    start = rng.standard_normal((6, 3))
    got = writes(Tensor(start, device="cuda"), "cuda")
    assert isinstance(got.data, cupy.ndarray)
    np.testing.assert_array_equal(got.numpy(), writes(Tensor(start.copy()), "cpu").numpy())


MIXED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "add": lambda a, b: a + b,
    "array": lambda a, b: a * b.data,
    "maximum": lambda a, b: a.maximum(b),
    "matmul": lambda a, b: a @ b,
    "where": lambda a, b: a.where(b > 0, a),
    "concatenate": lambda a, b: ops.concatenate([a, b]),
    "cross_entropy": lambda a, b: F.cross_entropy(a, b[0].to("int64")),
    "linear": lambda a, b: F.linear(a, b),
    "greater": lambda a, b: a > b,
    "array-greater": lambda a, b: a.data > b,
    "array-first": lambda a, b: a.data + b,
    "equal": lambda a, b: a == b,
    "index": lambda a, b: a[b[0].to("int64")],
    "assign": lambda a, b: a.__setitem__(0, b[0]),
    "assign-place": lambda a, b: a.__setitem__(b[0].to("int64"), 0),
    "update": lambda a, b: a.__iadd__(b),
    "grad": lambda a, b: setattr(a, "grad", b),
    "backward": lambda a, b: (a.requires_grad_() * a).backward(b),
    "clip": lambda a, b: clip_grad_norm_([with_gradient(a), with_gradient(b)], 1.0),
}


def with_gradient(x: Tensor) -> Tensor:
    x.grad = x.clone()
    return x


@pytest.mark.parametrize("first", ["cpu", "cuda"])
@pytest.mark.parametrize("name", MIXED)
def test_two_devices_in_one_op(name: str, first: str, cupy: Any) -> None:
    a, b = (Tensor(np.ones((3, 3), np.float32), device=device) for device in ("cpu", "cuda"))
    with pytest.raises(DeviceError, match="on cpu and cuda:0"):
        MIXED[name](*((a, b) if first == "cpu" else (b, a)))


def test_array_before_a_tensor(cupy: Any) -> None:
    array = cupy.asarray(np.arange(3.0))
    x = Tensor(np.ones(3), device="cuda", requires_grad=True)
    assert (array - x).tolist() == [-1, 0, 1]
    assert (array > x).tolist() == [False, False, True]
    (array * x).sum().backward()
    assert x.grad.tolist() == [0, 1, 2]


def test_comparing_with_a_list(cupy: Any) -> None:
    with pytest.raises(DeviceError, match="on cpu and cuda:0"):
        Tensor(np.ones(3), device="cuda").__lt__([1, 2, 3])


def test_data_from_another_device_drops_the_gradient(cupy: Any) -> None:
    x = Tensor(np.ones(3), requires_grad=True)
    x.sum().backward()
    x.data = cupy.asarray(x.data)
    assert x.grad is None
    x.sum().backward()
    assert x.grad.device == "cuda:0"


def test_moving_a_model_takes_its_gradients_along(cupy: Any) -> None:
    model = nn.Linear(3, 2)
    model(Tensor(np.ones((4, 3), np.float32))).sum().backward()
    want = [p.grad.data for p in model.parameters()]
    parameters = [*model.to("cuda").parameters()]
    assert {t.device for p in parameters for t in (p, p.grad, copy.deepcopy(p).grad)} == {"cuda:0"}
    for p, g in zip(model.to("cpu").parameters(), want, strict=True):
        np.testing.assert_array_equal(p.grad.data, g)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropout_drops_the_same_elements(p: float, cupy: Any) -> None:
    here = Tensor(np.ones((37, 41), np.float32))
    want, got = (ops.dropout(x, p, generator=np.random.default_rng(3)) for x in (here, here.to("cuda")))
    assert isinstance(got.data, cupy.ndarray)
    assert_f32(got.numpy(), want.numpy().astype(np.float64), TOLERANCES["rounded"])


def stepped(device: str, dtype: str, norm_type: float, settings: dict[str, Any]) -> list[np.ndarray]:
    """Parameters after steps of AdamW with clipped gradients, and the gradients' last norm."""
    rng = np.random.default_rng(0)
    params = [
        Tensor(rng.standard_normal(shape).astype(dtype), device=device, requires_grad=True) for shape in ((7, 5), (5,))
    ]
    optimizer = optim.AdamW(params, 0.01, weight_decay=0.1, **settings)
    gradients = [[to_device(rng.standard_normal(p.shape).astype(dtype), device) for p in params] for _ in range(3)]
    counts.clear()
    for step in gradients:
        for p, g in zip(params, step, strict=True):
            p.grad = Tensor(g)
        norm = clip_grad_norm_(params, 2.0, norm_type)
        optimizer.step()
    assert counts["sync"] == counts["upload"] == 0
    return [to_device(t.data, "cpu") for t in (*params, norm)]


@pytest.mark.parametrize("norm_type", [2.0, 3.0, math.inf])
@pytest.mark.parametrize("settings", [{}, {"amsgrad": True, "maximize": True}], ids=["plain", "amsgrad-maximize"])
def test_adamw_with_clipped_gradients(settings: dict[str, Any], norm_type: float, cupy: Any) -> None:
    want = stepped("cpu", "float64", norm_type, settings)
    for dtype, check in (("float32", assert_f32), ("float64", assert_f64)):
        for g, w in zip(stepped("cuda", dtype, norm_type, settings), want, strict=True):
            check(g, w, TOLERANCES["softmax"])


def test_norm_that_is_not_finite(cupy: Any) -> None:
    x = with_gradient(Tensor(np.array([1.0, np.inf]), device="cuda"))
    with pytest.raises(GraphError, match="is inf"):
        clip_grad_norm_([x], 1.0, error_if_nonfinite=True)


def test_checkpoint_of_a_gpu(cupy: Any, tmp_path: Path) -> None:
    def made(device: str, seed: int) -> tuple[nn.Module, optim.AdamW]:
        rng = np.random.default_rng(seed)
        model = nn.Sequential(nn.Conv2d(3, 4, 3, generator=rng), nn.BatchNorm2d(4)).to(device)
        return model, optim.AdamW(model.parameters(), 0.1)

    def step(model: nn.Module, optimizer: optim.AdamW) -> None:
        x = Tensor(np.random.default_rng(9).standard_normal((2, 5, 5, 3)).astype(np.float32))
        optimizer.zero_grad()
        (model(x.to(next(model.parameters()).device)) ** 2).mean().backward()
        optimizer.step()

    def state(model: nn.Module, optimizer: optim.AdamW) -> dict[str, Any]:
        kept = [(f"{i}.{k}", v) for i, values in optimizer.state_dict()["state"].items() for k, v in values.items()]
        return {name: Tensor(value).tolist() for name, value in (*model.state_dict().items(), *kept)}

    model, optimizer = made("cuda", 0)
    step(model, optimizer)
    checkpoint.save(tmp_path / "gpu.safetensors", model, optimizer)
    saved = checkpoint.load(tmp_path / "gpu.safetensors")
    for device in ("cuda", "cpu"):
        other, its_optimizer = made(device, 1)
        other.load_state_dict(saved.model)
        its_optimizer.load_state_dict(saved.optimizer)
        assert state(other, its_optimizer) == state(model, optimizer)
        step(other, its_optimizer)
        assert {t.device for t in (*other.parameters(), *other.buffers())} == {"cuda:0" if device == "cuda" else "cpu"}


def test_anomalies_are_found(cupy: Any) -> None:
    x = Tensor(np.array([4.0, 0.0, -1.0]), device="cuda", requires_grad=True)
    with detect_anomaly():
        (x * x).sum().backward()
        with pytest.raises(GraphError, match=r"Log.* made a NaN or an infinity"):
            x.log()
        root = x[:2].sqrt().sum()
        with pytest.raises(GraphError, match=r"backward of Sqrt.* made a NaN or an infinity"):
            root.backward()
        y = (x * x).sum()
        x.data[0] = 3  # behind the engine's back
        with pytest.raises(GraphError, match="behind the engine's back"):
            y.backward()
