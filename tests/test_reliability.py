"""Long graphs, long runs and types, at the sizes that break engines."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires import Tensor, models, nn, optim
from minires.errors import GraphError
from minires.nn import functional as F


def chain(length: int) -> tuple[Tensor, Tensor]:
    x = Tensor([1.0], requires_grad=True)
    y = x
    for _ in range(length):
        y = y + 1
    return x, y


def test_10000_chained_ops_are_quick() -> None:
    """Linear, not quadratic: ten times the ops take less than forty times as long."""

    def seconds(length: int) -> float:
        start = time.perf_counter()
        chain(length)[1].backward()
        return time.perf_counter() - start

    seconds(1000)
    assert min(seconds(10_000) for _ in range(3)) < 40 * min(seconds(1000) for _ in range(3))


@pytest.mark.parametrize("backward", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_million_chained_ops_are_built_walked_and_freed(backward: bool) -> None:
    """In a process of its own: an overflow of C's stack would end it."""
    code = f"""
import sys
from minires import Tensor
sys.setrecursionlimit(1000)
x = y = Tensor([1.0], requires_grad=True)
for _ in range(1_000_000):
    y = y + 1
if {backward}:
    y.backward()
    assert x.grad.item() == 1
del y
print("freed")
"""
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=root)
    assert run.stdout == "freed\n", run.stderr


@pytest.mark.parametrize(
    "through", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)
def test_copies_of_parameters_have_no_graph(through: Any, rng: np.random.Generator) -> None:
    layer = nn.Linear(3, 2, generator=rng)
    y = layer(np.ones((4, 3), np.float32))
    for _ in range(3000):
        y = y + 1
    y.sum().backward(retain_graph=True)
    twin = through(layer)
    np.testing.assert_array_equal(twin.weight.grad.data, layer.weight.grad.data)
    assert isinstance(twin.weight, nn.Parameter)
    assert twin.weight.requires_grad
    assert not np.shares_memory(twin.weight.data, layer.weight.data)
    with pytest.raises(GraphError, match="only leaves can be"):
        through(y)


SMALL_STEPS = """
import gc, json, os
import numpy as np
from minires import nn, optim

gc.disable()

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
optimizer = optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
x, labels = np.ones((4, 8), np.float32), np.arange(4)
for step in range(10_000):
    if step == 500:
        before = resident()
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(x), labels).backward()
    optimizer.step()
growth = resident() - before
gc.set_debug(gc.DEBUG_SAVEALL)
gc.collect()
ours = [type(o).__name__ for o in gc.garbage if type(o).__module__.partition(".")[0] == "minires"]
print(json.dumps([growth, ours]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
def test_10000_small_steps_leak_nothing() -> None:
    root = Path(__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-c", SMALL_STEPS], capture_output=True, text=True, check=True, timeout=300, cwd=root
    )
    growth, ours = json.loads(run.stdout)
    assert growth <= 5_000_000
    assert ours == []


def optimizers() -> list[type[optim.Optimizer]]:
    classes = [v for v in vars(optim).values() if isinstance(v, type) and issubclass(v, optim.Optimizer)]
    return [c for c in classes if c is not optim.Optimizer]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("optimizer_class", optimizers(), ids=lambda o: o.__name__)
def test_two_steps_make_no_float64_tensor(
    optimizer_class: Any, dtype: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    net: Any = models.ResNet((1, 1), 10, widths=(4, 8), generator=rng).to(dtype)
    images = rng.standard_normal((4, 6, 5, 3)).astype(dtype)
    construct = Tensor.__init__

    def checked(self: Tensor, *args: Any, **kwargs: Any) -> None:
        construct(self, *args, **kwargs)
        assert self.dtype != np.float64

    monkeypatch.setattr(Tensor, "__init__", checked)
    optimizer = optimizer_class(net.parameters(), lr=np.float64(0.1), weight_decay=np.float64(1e-4))
    for _ in range(2):
        loss = F.cross_entropy(net(images), rng.integers(0, 10, 4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.dtype == dtype
    assert {p.dtype.name for p in net.parameters()} == {p.grad.dtype.name for p in net.parameters()} == {dtype}
    arrays = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, np.ndarray) and v.ndim]
    assert arrays or optimizer_class is optim.SGD
    assert {a.dtype.name for a in arrays} <= {dtype, "float32"}
