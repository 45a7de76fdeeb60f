"""What every op must do, case by case: one body a promise, the table of cases in `cases.py`."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np
import pytest

from minires import Function, Tensor, gradcheck, no_grad, ops
from tests.helpers import EXACT, LAYOUTS, Tolerance, assert_f16, assert_f32, assert_f64, laid_out
from tests.ops.case import Case, gradient_for
from tests.ops.cases import BY_NAME, CASES, FAMILIES

every_case = pytest.mark.parametrize("case", CASES, ids=str)


def functions() -> set[type]:
    """All differentiable ops of the engine."""
    modules = [importlib.import_module(f"{ops.__name__}.{m.name}") for m in pkgutil.iter_modules(ops.__path__)]
    values = {v for module in modules for v in vars(module).values() if isinstance(v, type)}
    return {v for v in values if issubclass(v, Function) and v not in (Function, ops.elementwise.Binary)}


@every_case
def test_value_is_that_of_the_loops(case: Case) -> None:
    arrays = case.inputs()
    assert_f64(case.run(arrays)[0], np.asarray(case.naive(*arrays)), case.tolerances[0])


@every_case
def test_gradients_are_those_of_finite_differences(case: Case) -> None:
    fn, floats = case.on_floats(case.inputs())
    assert sum(a.size for a in floats) <= 400
    assert max(a.size for a in floats) <= 200
    gradcheck(fn, floats)


@every_case
def test_float32_is_near_float64(case: Case) -> None:
    arrays = case.inputs(np.float32)
    exact = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    want = [np.asarray(case.naive(*exact)), *case.run(exact)[1:]]
    for g, w, tolerance in zip(case.run(arrays), want, case.tolerances, strict=False):
        assert_f32(g, w, tolerance)


@every_case
def test_float16_is_near_float64(case: Case) -> None:
    arrays = case.inputs(np.float16)
    exact = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    gy = gradient_for(case.run(exact)[0]).astype(np.float16)
    want = case.run(exact, gy.astype(np.float64))
    for g, w, tolerance in zip(case.run(arrays, gy), want, case.tolerances, strict=False):
        assert_f16(g, w, tolerance)


@every_case
def test_inputs_and_output_gradient_stay_unmodified(case: Case) -> None:
    arrays = case.inputs()
    gy = gradient_for(case.run(arrays)[0])
    given = [*arrays, gy]
    copies = [a.copy() for a in given]
    case.run(arrays, gy)
    for a, copy in zip(given, copies, strict=True):
        np.testing.assert_array_equal(a, copy)
        a.flags.writeable = False  # a write that puts back what was there is one too
    case.run(arrays, gy)


@pytest.mark.parametrize("layout", LAYOUTS)
@every_case
def test_memory_layout_does_not_matter(case: Case, layout: str) -> None:
    arrays = [laid_out(a, layout) for a in case.inputs()]
    copies = [a.copy(order="C") for a in arrays]
    gy = laid_out(gradient_for(case.run(copies)[0]), layout)
    want, got = case.run(copies, gy.copy(order="C")), case.run(arrays, gy)
    for g, w, tolerance in zip(got, want, case.tolerances, strict=False):
        # sums may run in another order, and NumPy has other code for exp and pow of strided arrays
        assert_f64(g, w, EXACT if tolerance is EXACT else Tolerance(1e-14, 0, 0, 0))


@pytest.mark.parametrize("case", [case for case in CASES if case.batched], ids=str)
def test_empty_batch(case: Case) -> None:
    arrays = [a[:0] if i in case.batched else a for i, a in enumerate(case.inputs())]
    got = case.run(arrays)
    np.testing.assert_array_equal(got[0], case.naive(*arrays))
    for gradient, a in zip(got[1:], (a for a in arrays if a.dtype.kind == "f"), strict=True):
        np.testing.assert_array_equal(gradient, np.zeros_like(a))


@every_case
def test_nothing_is_recorded_without_need(case: Case) -> None:
    fn, floats = case.on_floats(case.inputs())
    assert fn(*map(Tensor, floats)).node is None
    with no_grad():
        assert not fn(*(Tensor(a, requires_grad=True) for a in floats)).requires_grad


@every_case
def test_each_input_may_be_the_only_one_with_a_gradient(case: Case) -> None:
    fn, floats = case.on_floats(case.inputs())
    y, *want = case.run(case.inputs())
    for i, w in enumerate(want):
        tensors = [Tensor(a, requires_grad=i == j) for j, a in enumerate(floats)]
        fn(*tensors).backward(gradient_for(y))
        np.testing.assert_array_equal(tensors[i].grad.data, w)
        assert all(t.grad is None for j, t in enumerate(tensors) if j != i)


def test_table_holds_every_op() -> None:
    used = set()
    for case in CASES:
        fn, floats = case.on_floats(case.inputs())
        pending = [fn(*(Tensor(a, requires_grad=True) for a in floats)).node]
        while pending:
            node = pending.pop()
            if isinstance(node, Function):
                used.add(type(node))
                pending.extend(edge.source for edge in node.inputs if edge)
    assert functions() - used == {ops.dtypes.Cast}  # whose gradient changes type: see test_elementwise.py
    assert len(BY_NAME) == len(CASES)
    assert {case.name.partition("-")[0] for case in CASES} == set(FAMILIES)
