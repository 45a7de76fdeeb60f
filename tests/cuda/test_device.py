"""Devices by name where there is a GPU: which one is meant, which one is in use."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from minires import Tensor, device, environment
from minires.errors import DeviceError
from tests.cuda import fake_cuda


@pytest.fixture
def two(emulated: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A second GPU, which is there but for its arrays."""
    current = SimpleNamespace(id=0)
    monkeypatch.setattr(fake_cuda.runtime, "getDeviceCount", lambda: 2)
    monkeypatch.setattr(fake_cuda.runtime, "getDevice", lambda: current.id)
    monkeypatch.setattr(fake_cuda.Device, "use", lambda self: setattr(current, "id", self.id))


def test_names(two: None) -> None:
    assert [device.resolve(name) for name in ("cpu", "cuda", "auto", "cuda:1")] == ["cpu", "cuda:0", "cuda:0", "cuda:1"]
    with pytest.raises(DeviceError, match=r"'cuda:2' cannot be used: this machine has 2 GPU\(s\), counted from cuda:0"):
        device.resolve("cuda:2")
    assert device.use("cuda:1") == device.resolve("cuda") == device.resolve("auto") == "cuda:1"
    assert device.use("cpu") == "cpu"
    assert device.use("cuda") == "cuda:1"


def test_arrays_go_to_the_gpu_in_use(two: None) -> None:
    x = Tensor(np.ones(3, np.float32))
    assert x.to("cuda").device == "cuda:0"
    with pytest.raises(DeviceError, match=r"cuda:1 is not the current GPU: call minires.device.use\('cuda:1'\) first"):
        x.to("cuda:1")


def test_headers_name_the_gpu(emulated: Counter[str]) -> None:
    assert device.describe("cpu") == "cpu"
    assert device.describe("cuda:0") == "cuda:0 (Fake GPU)"
    assert environment.devices() == "cpu, cuda:0 (Fake GPU)"
    assert environment.peak_memory("cuda:0") == f"{environment.peak_memory()}, 3.22 GB on cuda:0"


def test_synchronize_waits(emulated: Counter[str]) -> None:
    device.resolve("cuda")  # the first time it tries the GPU, and waits for what comes out
    emulated.clear()
    device.synchronize("cpu")
    assert emulated["sync"] == 0
    device.synchronize("cuda")
    assert emulated["sync"] == 1


def test_moving_uploads_once(emulated: Counter[str]) -> None:
    x = Tensor(np.ones(3, np.float32), requires_grad=True)
    device.resolve("cuda")
    emulated.clear()
    y = x.to("cuda")
    assert (emulated["upload"], y.requires_grad, y.to("cuda") is y) == (1, True, True)
    assert (emulated["upload"], emulated["sync"]) == (1, 0)
