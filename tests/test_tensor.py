"""Tensor: what it is made from, how it is indexed, and how values come out again."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import minires
from minires import Tensor, nn
from minires.errors import ArgumentError, DeviceError, DTypeError, GraphError, RangeError, ShapeError
from tests.oracle import torch


def ones(dtype: str, shape: tuple[int, ...] = (2, 3)) -> Tensor:
    return Tensor(np.ones(shape, dtype))


@pytest.mark.parametrize(
    ("data", "dtype", "shape"),
    [
        (1.5, "float32", ()),
        (2, "int64", ()),
        (True, "bool", ()),
        ([1.0, 2.0], "float32", (2,)),
        ([[1, 2], [3, 4]], "int64", (2, 2)),
        ([1, 2.5], "float32", (2,)),
        ([], "float32", (0,)),
        ((1.0, 2.0), "float32", (2,)),
        (range(3), "int64", (3,)),
        (np.ones(2), "float64", (2,)),
        (np.ones((2, 0), np.float16), "float16", (2, 0)),
        (np.float64(1.5), "float64", ()),
        (np.zeros(2, np.uint8), "uint8", (2,)),
    ],
)
def test_construction(data: Any, dtype: str, shape: tuple[int, ...]) -> None:
    t = Tensor(data)
    assert (t.dtype, t.shape, t.ndim) == (np.dtype(dtype), shape, len(shape))
    assert t.numel() == t.data.size
    assert t.size() == t.shape
    assert [t.size(dim) for dim in range(t.ndim)] == list(shape)
    assert (t.device, t.is_leaf, t.requires_grad, t.grad) == ("cpu", True, False, None)
    assert Tensor(data, dtype="float64").dtype == np.float64


def test_python_floats_keep_their_digits_in_float64() -> None:
    """They become float32 only where nothing else is asked for."""
    assert Tensor([0.1, 1e300], dtype="float64").tolist() == [0.1, 1e300]
    assert minires.tensor(0.1, dtype=np.float64).item() == 0.1
    x = Tensor(np.zeros(2), requires_grad=True)
    (x * 1).backward([0.1, 1e300])
    assert x.grad.tolist() == [0.1, 1e300]


def test_an_array_is_shared_and_tensor_copies() -> None:
    array = np.ones(3, np.float32)
    assert Tensor(array).data is array
    assert Tensor(Tensor(array)).data is array
    for copied in (minires.tensor(array), minires.tensor(Tensor(array)), Tensor(array, dtype="float64")):
        assert not np.shares_memory(copied.data, array)
    assert minires.tensor([1.0], requires_grad=True).requires_grad


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (["a"], DTypeError, "takes numbers"),
        (None, DTypeError, "takes numbers.*NoneType"),
        (1j, DTypeError, "complex128"),
        ([[1], [2, 3]], ShapeError, "inhomogeneous"),
    ],
)
def test_construction_refuses(data: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Tensor(data)


@pytest.mark.parametrize("device", ["gpu", "cuda:x"])
def test_unknown_devices_are_refused(device: str) -> None:
    with pytest.raises(DeviceError, match="unknown device"):
        Tensor([1.0], device=device)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_only_floats_require_grad(dtype: str) -> None:
    array = np.ones(2, dtype)
    for make in (
        lambda: Tensor(array, requires_grad=True),
        lambda: minires.tensor(array, requires_grad=True),
        lambda: Tensor(array).requires_grad_(),
    ):
        with pytest.raises(DTypeError, match=f"only floating tensors .*{dtype}"):
            make()


def test_requires_grad_of_a_result_stays() -> None:
    y = Tensor([1.0]).requires_grad_() * 2
    with pytest.raises(GraphError, match=r"use detach\(\)"):
        y.requires_grad = False


# Indexing


@pytest.mark.parametrize(
    "where", [0, -1, slice(1, None), (0, 1), (slice(None), 2), ..., (..., 0), None, (None, 1), slice(None, None, -1)]
)
def test_indexing_and_assignment(where: Any) -> None:
    array = np.arange(6.0).reshape(2, 3)
    t = Tensor(array.copy())
    np.testing.assert_array_equal(t[where].data, array[where])
    t[where] = 9
    array[where] = 9
    np.testing.assert_array_equal(t.data, array)


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        (2, RangeError, r"2 does not fit shape \(2, 3\)"),
        ((0, 0, 0), RangeError, "does not fit shape"),
        ([0, 2], RangeError, r"\[0, 2\] does not fit shape \(2, 3\)"),
        ([0.5, 1], ArgumentError, "by integers, slices.*not by list"),
        (np.array([0.5, 1]), ArgumentError, r"not by float64 of shape \(2,\)"),
        (True, ArgumentError, "not by bool"),
        (1.0, ArgumentError, "not by float"),
    ],
)
def test_indices_refused(where: Any, error: type, message: str) -> None:
    t = ones("float32")
    with pytest.raises(error, match=message):
        t[where]
    with pytest.raises(error, match=message):
        t[where] = 1
    np.testing.assert_array_equal(t.data, 1)


def test_assignment_must_fit() -> None:
    with pytest.raises(ShapeError, match="item assignment"):
        ones("float32")[0] = np.ones(2)


def test_iteration() -> None:
    rows = list(Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True))
    assert [row.tolist() for row in rows] == [[1, 2], [3, 4]]
    assert rows[0].requires_grad
    assert len(Tensor(np.ones((4, 2)))) == 4
    for use in (len, list):
        with pytest.raises(ShapeError, match="without dimensions"):
            use(Tensor(1.0))


# Numbers and arrays out


def test_python_numbers() -> None:
    assert Tensor([[2.5]]).item() == 2.5
    assert isinstance(Tensor(2).item(), int)
    assert Tensor([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert (float(Tensor(1.5)), int(Tensor([3.0])), bool(Tensor([[0.0]]))) == (1.5, 3, False)
    assert "abc"[Tensor(1)] == "b"
    assert f"{Tensor(1.23456):.2f}" == "1.23"
    assert f"{Tensor([1.0, 2.0])}" == repr(Tensor([1.0, 2.0]))


@pytest.mark.parametrize(
    ("use", "error"),
    [(Tensor.item, ShapeError), (float, ShapeError), (bool, ShapeError), (lambda t: "abc"[t[0]], DTypeError)],
)
def test_python_numbers_refused(use: Any, error: type) -> None:
    with pytest.raises(error):
        use(Tensor([1.0, 2.0]))


def test_numpy() -> None:
    t = Tensor(np.arange(3.0))
    assert t.numpy() is t.data
    assert np.asarray(t) is t.data
    assert np.array(t) is not t.data
    assert np.asarray(t, dtype=np.float32).dtype == np.float32
    assert np.add(np.asarray(t), 1).tolist() == [1, 2, 3]


@pytest.mark.parametrize("export", [Tensor.numpy, np.asarray, torch.from_dlpack, np.from_dlpack])
def test_tensors_in_a_graph_do_not_leave(export: Any) -> None:
    with pytest.raises(GraphError, match=r"use tensor\.detach\(\)"):
        export(Tensor([1.0], requires_grad=True))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_dlpack_round_trip(dtype: str) -> None:
    """Without a copy, both ways."""
    t = Tensor(np.arange(6).reshape(2, 3).astype(dtype))
    theirs = torch.from_dlpack(t)
    theirs[0, 1] = 9
    assert t.tolist() == theirs.tolist() == [[0, 9, 2], [3, 4, 5]]
    assert np.shares_memory(Tensor(np.from_dlpack(theirs)).data, t.data)
    assert str(theirs.dtype) == f"torch.{dtype}"


# Copies


def test_clone() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    c = x.clone()
    assert not np.shares_memory(c.data, x.data)
    (c * 3).sum().backward()
    assert x.grad.tolist() == [3, 3]
    assert x.detach().clone().node is None


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_deepcopy_and_pickle(duplicate: Any) -> None:
    weight = nn.Parameter(np.ones((1, 1, 2, 3), np.float32), layout="HWIO")
    (weight * 2).sum().backward()
    twin = duplicate(weight)
    assert (type(twin), twin.layout, twin.requires_grad) == (nn.Parameter, "HWIO", True)
    np.testing.assert_array_equal(twin.data, weight.data)
    np.testing.assert_array_equal(twin.grad.data, 2)
    (twin * 3).sum().backward()
    with minires.no_grad():
        twin += 1
    assert (weight.data == 1).all()
    assert (weight.grad.data == 2).all()
    assert weight.version.count == 0


def test_deepcopy_of_a_result_is_refused() -> None:
    with pytest.raises(GraphError, match="only leaves"):
        copy.deepcopy(Tensor([1.0], requires_grad=True) * 2)


@pytest.mark.parametrize(
    ("args", "options", "dtype"),
    [
        (("float64",), {}, "float64"),
        ((np.float16,), {}, "float16"),
        (("cpu",), {}, "float32"),
        (("cpu", "float64"), {}, "float64"),
        ((), {"dtype": "float64"}, "float64"),
        ((), {"device": "cpu"}, "float32"),
        ((None,), {}, "float32"),
        ((None, "float64"), {}, "float64"),
    ],
)
def test_to(args: tuple[Any, ...], options: dict[str, Any], dtype: str) -> None:
    t = Tensor([1.0], requires_grad=True)
    moved = t.to(*args, **options)
    assert moved.dtype == np.dtype(dtype)
    assert (moved is t) == (dtype == "float32")
    (moved * 2).sum().backward()
    assert t.grad.dtype == np.float32
    assert t.grad.item() == 2


def test_to_refuses() -> None:
    with pytest.raises(ArgumentError, match=r"'foo'.*neither a device .* nor a dtype"):
        Tensor([1.0]).to("foo")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Tensor([1.0, 2.5]), "Tensor([1. , 2.5], shape=(2,), dtype=float32)"),
        (lambda: Tensor(3), "Tensor(3, shape=(), dtype=int64)"),
        (lambda: Tensor([1.0], requires_grad=True), "Tensor([1.], shape=(1,), dtype=float32, requires_grad=True)"),
        (lambda: Tensor([1.0], requires_grad=True) * 2, "Tensor([2.], shape=(1,), dtype=float32, from Mul())"),
    ],
)
def test_repr(make: Any, text: str) -> None:
    assert repr(make()) == text


def test_repr_of_a_large_tensor_is_short() -> None:
    assert len(repr(Tensor(np.zeros((100, 100))))) < 200
