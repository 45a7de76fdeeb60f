"""Losses of drawn shapes, types, memory layouts and settings, beside PyTorch's in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minires import Tensor, ops
from tests.oracle import torch
from tests.strategies import arrays, dtypes, shapes

few = settings(max_examples=150)
ERRORS = {np.dtype(np.float64): 1e-13, np.dtype(np.float32): 2e-6, np.dtype(np.float16): 3e-3}
reductions = st.sampled_from(["mean", "sum", "none"])
F = torch.nn.functional


def torchs(a: np.ndarray | None) -> Any:
    return None if a is None else torch.tensor(a.astype(np.float64) if a.dtype.kind == "f" else a)


def check(ours: Any, theirs: Any, inputs: list[np.ndarray], seed: Any) -> None:
    """`ours` on inputs as they lie in memory, and `theirs`: the loss and all gradients."""
    copies = [a.copy() for a in inputs]
    dtype = inputs[0].dtype
    tensors = [Tensor(a, requires_grad=True) for a in inputs]
    their_tensors = [torchs(a).requires_grad_() for a in inputs]
    loss, their_loss = ours(*tensors), theirs(*their_tensors)
    gy = seed(loss.shape)
    loss.backward(gy)
    their_loss.backward(torchs(gy))
    pairs = [
        (loss.data, their_loss.detach()),
        *((t.grad.data, u.grad) for t, u in zip(tensors, their_tensors, strict=True)),
    ]
    for got, want in pairs:
        want = want.numpy()
        assert got.dtype == dtype
        assert got.shape == want.shape
        limit = ERRORS[dtype] * max(1, np.max(np.abs(want), initial=0, where=~np.isnan(want)))
        np.testing.assert_allclose(got, want, rtol=0, atol=limit)  # NaN, the mean of nothing, where PyTorch has it
    for a, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(a, copy)


def classes_second(x: Any) -> Any:
    return x if x.ndim == 1 else x.permute(0, x.ndim - 1, *range(1, x.ndim - 1)).contiguous()


@few
@given(st.data())
def test_class_numbers(data: Any) -> None:
    """Every shape, weight, ignored label, smoothing and reduction; labels of which some, or all, are ignored."""
    lead, classes = data.draw(shapes(min_dims=0, max_dims=3, max_side=3)), data.draw(st.integers(1, 4))
    dtype, reduction = data.draw(dtypes), data.draw(reductions)
    smooth = data.draw(st.sampled_from([None, 0.0, 0.25, 1.0]))  # None: nll_loss
    ignored = data.draw(st.sampled_from([-100, -1, 0, classes - 1]))
    labels = st.sampled_from([*range(classes), ignored])
    target = np.array([data.draw(labels) for _ in range(int(np.prod(lead)))], np.int64).reshape(lead)
    weight = data.draw(st.none() | arrays((classes,), dtype, 0.125, 2))
    name, mixed = ("nll_loss", {}) if smooth is None else ("cross_entropy", {"label_smoothing": smooth})
    keywords = {"ignore_index": ignored, "reduction": reduction, **mixed}
    check(
        lambda z: getattr(ops, name)(z, target, weight, **keywords),
        lambda z: getattr(F, name)(classes_second(z), torchs(target), torchs(weight), **keywords),
        [data.draw(arrays((*lead, classes), dtype))],
        lambda shape: data.draw(arrays(shape, dtype, -2, 2)),
    )


@few
@given(st.data())
def test_probabilities(data: Any) -> None:
    """They need not sum to 1."""
    lead, classes = data.draw(shapes(min_dims=0, max_dims=3, max_side=3)), data.draw(st.integers(1, 4))
    dtype = data.draw(dtypes)
    weight = data.draw(st.none() | arrays((classes,), dtype, 0.125, 2))
    keywords = {"reduction": data.draw(reductions), "label_smoothing": data.draw(st.sampled_from([0.0, 0.25, 1.0]))}
    check(
        lambda z, q: ops.cross_entropy(z, q, weight, **keywords),
        lambda z, q: F.cross_entropy(classes_second(z), classes_second(q), torchs(weight), **keywords),
        [data.draw(arrays((*lead, classes), dtype)), data.draw(arrays((*lead, classes), dtype, 0, 1))],
        lambda shape: data.draw(arrays(shape, dtype, -2, 2)),
    )


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "binary_cross_entropy_with_logits"])
@few
@given(data=st.data())
def test_element_by_element(name: str, data: Any) -> None:
    shape, dtype, reduction = data.draw(shapes()), data.draw(dtypes), data.draw(reductions)
    binary = name.startswith("binary")
    target = data.draw(arrays(shape, dtype, 0 if binary else -4, 1 if binary else 4))
    weights = {}
    for key in ("weight", "pos_weight") if binary else ():
        of = data.draw(st.sampled_from([None, (), shape[-1:], shape]))
        weights[key] = None if of is None else data.draw(arrays(of, dtype, 0.125, 2))
    check(
        lambda x, t: getattr(ops, name)(x, t, reduction=reduction, **weights),
        lambda x, t: getattr(F, name)(x, t, reduction=reduction, **{k: torchs(w) for k, w in weights.items()}),
        [data.draw(arrays(shape, dtype)), target],
        lambda shape: data.draw(arrays(shape, dtype, -2, 2)),
    )
