"""Memory: a training step leaves nothing behind, with the garbage collector off."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires import Tensor, nn, optim

# Steps 20 to 300, so that the first steps' warm-up (BLAS, caches, the allocator) is over. LEAK is replaced by a planted
# reference cycle, or by nothing.
TRAINING = """
import gc, json, os
import numpy as np
from minires import Tensor, models, nn, optim

gc.disable()

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

rng = np.random.default_rng(0)
net = models.ResNet((1, 1), 10, widths=(8, 16), generator=rng)
optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
images = rng.standard_normal((8, 8, 12, 3)).astype(np.float32)
labels = rng.integers(0, 10, 8)
gc.collect()
gc.set_debug(gc.DEBUG_SAVEALL)
for step in range(301):
    if step == 20:
        before = resident()
    logits = net(images)
    loss = nn.functional.cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    LEAK
growth = resident() - before
del logits, loss
gc.collect()
ours = [type(o).__name__ for o in gc.garbage if type(o).__module__.partition(".")[0] == "minires"]
print(json.dumps({"growth": growth, "ours": ours}))
"""


def train(leak: str = "pass") -> dict[str, Any]:
    script = TRAINING.replace("LEAK", leak)
    root = Path(__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120, cwd=root
    )
    return json.loads(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
def test_training_leaks_nothing() -> None:
    result = train()
    print(f"growth {result['growth'] / 1e6:.2f} MB, {len(result['ours'])} objects of minires in cycles")
    assert result["growth"] <= 5_000_000
    assert result["ours"] == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
def test_a_planted_cycle_is_found() -> None:
    result = train(leak="loss.node.cycle = loss; loss.node.ballast = logits.data.repeat(1000)")
    assert result["growth"] > 5_000_000
    assert "Tensor" in result["ours"]


@pytest.fixture
def no_collector() -> Any:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("backward", [True, False])
def test_kept_losses_keep_no_activations(backward: bool, rng: np.random.Generator) -> None:
    """Once backward has run. Before, they must: that is the check's check."""
    net = nn.Sequential(nn.Linear(3, 50, generator=rng), nn.ReLU(), nn.Linear(50, 2, generator=rng))
    activations, losses = [], []
    net[1].register_forward_hook(lambda module, inputs, output: activations.append(weakref.ref(output.data)))
    for _ in range(3):
        loss = net(rng.standard_normal((8, 3)).astype(np.float32)).mean()
        if backward:
            loss.backward()
        losses.append(loss)
    assert [ref() is None for ref in activations] == [backward] * 3
    assert all(np.isfinite(loss.item()) for loss in losses)


@pytest.mark.usefixtures("no_collector")
def test_a_dropped_graph_is_freed_at_once(rng: np.random.Generator) -> None:
    w = Tensor(rng.standard_normal((4, 4)), requires_grad=True)
    y = (w @ w).exp()
    array = weakref.ref(y.data)
    z = y.sum()
    del y
    assert array() is not None
    del z
    assert array() is None


@pytest.mark.usefixtures("no_collector")
def test_a_step_frees_its_old_gradients(rng: np.random.Generator) -> None:
    layer = nn.Linear(3, 2, generator=rng)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    layer(rng.standard_normal((4, 3)).astype(np.float32)).sum().backward()
    gradient = weakref.ref(layer.weight.grad.data)
    optimizer.step()
    optimizer.zero_grad()
    assert gradient() is None
