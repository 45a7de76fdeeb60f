"""What a program is told when a device has no memory left."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from minires import Function, Tensor
from minires.errors import DeviceError, OutOfMemoryError
from minires.nn import functional as F


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes every new array of the fake's fail, as CuPy's pool does."""

    def fill() -> None:
        import cupy

        def empty(*args: Any, **kwargs: Any) -> None:
            raise MemoryError("Out of memory allocating 512 bytes (allocated so far: 1,024 bytes).")

        monkeypatch.setattr(cupy, "empty", empty)

    return fill


def test_forward(emulated: Counter[str], full: Any) -> None:
    x, w = Tensor(np.ones((1, 4, 4, 4), "f")).to("cuda"), Tensor(np.ones((3, 3, 4, 4), "f"), requires_grad=True)
    full()
    message = (
        r"Conv2d\(geometry=.*: out of memory on cuda:0, which has 1.07 of 4.29 GB free \(Out of memory allocating 512 "
        r"bytes .*; use a smaller batch, and no_grad\(\) where nothing is trained"
    )
    with pytest.raises(OutOfMemoryError, match=message) as error:
        F.conv2d(x, w.to("cuda"))
    assert isinstance(error.value, DeviceError)
    assert isinstance(error.value, MemoryError)
    assert isinstance(error.value.__cause__, MemoryError)
    assert emulated["freed"] == 1


def test_backward_can_be_repeated_with_less(emulated: Counter[str], full: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    w = Tensor(np.ones((3, 3, 4, 4), "f")).to("cuda").requires_grad_(True)
    y = F.conv2d(Tensor(np.ones((1, 4, 4, 4), "f")).to("cuda"), w)
    full()
    with pytest.raises(OutOfMemoryError, match=r"backward of Conv2d\(.* out of memory on cuda:0"):
        y.sum().backward()
    monkeypatch.undo()
    F.conv2d(Tensor(np.ones((1, 4, 4, 4), "f")).to("cuda"), w).sum().backward()
    assert w.grad is not None
    assert float(w.grad.sum()) == 4.0 * 9 * 4 * 4


def test_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_left(*args: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("minires.ops.conv.conv2d_kernel", nothing_left)
    w = Tensor(np.ones((3, 3, 4, 4), "f"), requires_grad=True)
    with pytest.raises(OutOfMemoryError, match=r"out of memory on cpu \(no reason given\); use a smaller batch"):
        F.conv2d(np.ones((1, 4, 4, 4), "f"), w)


def test_it_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the op that it happened to, not by the one that called that."""

    class Inner(Function):
        def forward(self, x: Any) -> Any:
            raise MemoryError("full")

    class Outer(Function):
        def forward(self, x: Any) -> Any:
            return Inner()(Tensor(x)).data

    with pytest.raises(OutOfMemoryError, match=r"^<.*Inner.*>: out of memory on cpu \(full\); use") as error:
        Outer()(Tensor(np.ones(3)))
    assert "Outer" not in str(error.value)
