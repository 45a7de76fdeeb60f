"""Reductions of arrays of any shape, floating type and memory layout, over any dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minires import Tensor, ops
from tests.ops.properties import check, check_adjoint, run, run_torch, weights_for
from tests.oracle import torch
from tests.strategies import arrays

pytestmark = pytest.mark.filterwarnings("ignore:.*degrees of freedom is <= 0")  # PyTorch's, for the variance of one
some = settings(max_examples=100)


@st.composite
def with_dims(draw: Any, several: bool = True) -> tuple[np.ndarray, Any]:
    """An array, and dimensions of it, counted from either end: one, several, or none named."""
    x = draw(arrays())
    ndim = max(x.ndim, 1)
    one = st.integers(-ndim, ndim - 1)
    chosen = st.lists(st.integers(0, ndim - 1), min_size=1, max_size=ndim, unique=True).map(
        lambda dims: tuple(d - ndim if d % 2 else d for d in dims)
    )
    return x, draw(st.one_of(one, chosen, st.none()) if several else one)


def terms(x: np.ndarray, dim: Any) -> int:
    axes = range(x.ndim) if dim is None else [d % max(x.ndim, 1) for d in (dim if isinstance(dim, tuple) else (dim,))]
    return int(np.prod([x.shape[axis] for axis in axes if x.ndim]))


@pytest.mark.parametrize("name", ["sum", "mean", "var", "std", "logsumexp", "amax", "amin"])
@some
@given(drawn=with_dims(), keepdim=st.booleans())
def test_reductions_are_pytorchs(name: str, drawn: Any, keepdim: bool) -> None:
    x, dim = drawn
    assume(terms(x, dim) > 0 or name not in ("amax", "amin"))
    dim = tuple(range(x.ndim)) if dim is None and name in ("amax", "amin", "logsumexp") else dim
    assume(dim != () or name != "logsumexp")  # PyTorch takes (): none of the dimensions
    settings = {"dim": dim, "keepdim": keepdim}
    check(
        lambda t: getattr(ops, name)(t, **settings), lambda t: getattr(torch, name)(t, **settings), [x],
        exact=name in ("sum", "amax", "amin") and x.dtype != np.float16,
    )  # fmt: skip


@some
@given(drawn=with_dims(), correction=st.sampled_from([0, 0.5, 2]), root=st.booleans())
def test_variances_with_a_correction_are_pytorchs(drawn: Any, correction: float, root: bool) -> None:
    x, dim = drawn
    assume(terms(x, dim) > correction)
    name = "std" if root else "var"
    check(
        lambda t: getattr(ops, name)(t, dim, correction=correction),
        lambda t: getattr(torch, name)(t, dim, correction=correction), [x], exact=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["max", "min"])
@some
@given(drawn=with_dims(several=False), keepdim=st.booleans())
def test_the_best_along_a_dimension_is_the_first(name: str, drawn: Any, keepdim: bool) -> None:
    """Values and gradients are those of taking at the first best place, ties being common here."""
    x, dim = drawn
    assume(terms(x, dim) > 0)
    place = getattr(np, f"arg{name}")(x, axis=dim if x.ndim else None, keepdims=True)
    want = run_torch(lambda t: t.take_along_dim(torch.tensor(place), dim) if x.ndim else t * 1, [x])
    result = getattr(ops, name)(Tensor(x), dim, keepdim)
    kept = place.shape if keepdim or not x.ndim else np.squeeze(place, dim).shape
    assert result.values.shape == result.indices.shape == kept
    np.testing.assert_array_equal(result.indices.data.ravel(), place.ravel())
    np.testing.assert_array_equal(getattr(ops, f"arg{name}")(Tensor(x), dim).data.ravel(), place.ravel())
    y, gx = run(lambda t: getattr(ops, name)(t, dim, keepdim).values, [x], weights_for(place.shape).reshape(kept))
    np.testing.assert_array_equal(y.ravel(), want[0].astype(x.dtype).ravel())
    np.testing.assert_array_equal(gx, want[1].astype(x.dtype))


@some
@given(drawn=with_dims(), keepdim=st.booleans())
def test_sum_has_an_adjoint(drawn: Any, keepdim: bool) -> None:
    x, dim = drawn
    check_adjoint(lambda t: ops.sum(t, dim, keepdim), [x])


@some
@given(drawn=with_dims(), keepdim=st.booleans())
def test_integers_reduce_as_in_pytorch(drawn: Any, keepdim: bool) -> None:
    x, dim = drawn
    whole = (x.astype(np.float64) * 8).astype(np.int64)
    names = ["sum"] + (["amax", "amin"] if terms(x, dim) else [])
    for name in names:
        dims = tuple(range(x.ndim)) if dim is None else dim
        y, want = (
            getattr(ops, name)(Tensor(whole), dims, keepdim),
            getattr(torch, name)(torch.tensor(whole), dims, keepdim),
        )
        assert y.dtype == np.int64
        np.testing.assert_array_equal(y.data, want.numpy())
