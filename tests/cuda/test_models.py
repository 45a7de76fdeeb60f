"""Every kind of block and shortcut on the GPU beside the CPU's: logits and gradients, and no step that waits."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from minires import Tensor, device, models, nn
from minires.nn import functional as F

BLOCKS = [models.BasicBlock, models.Bottleneck, models.PreActBasicBlock, models.PreActBottleneck]
KINDS = [{"block": block, "shortcut": shortcut} for block in BLOCKS for shortcut in (*models.SHORTCUTS, None)]
KINDS += [{"block": block, "batch_norm": False} for block in BLOCKS]


def gradients(model: nn.Module, images: np.ndarray, place: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits of a step's forward pass, and each parameter's gradient."""
    model = model.to(place)
    logits = model(Tensor(images).to(place))
    F.cross_entropy(logits, Tensor(np.array([0, 3, 1, 2])).to(place)).backward()
    on_cpu = [device.to_device(p.grad.data, "cpu") for p in model.parameters()]
    return device.to_device(logits.data, "cpu"), on_cpu


def assert_near(got: np.ndarray, want: np.ndarray) -> None:
    """In float64, with sums in another order."""
    assert got.dtype == want.dtype == np.float64
    assert abs(got - want).max() <= 1e-11 * abs(want).max() + 1e-12


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())).replace("minires.", ""))
def test_blocks_beside_the_cpu(kind: dict[str, Any], cupy: Any, rng: np.random.Generator) -> None:
    here, there = (
        models.ResNet((1, 2), 4, "imagenet", widths=(4, 6), generator=np.random.default_rng(0), **kind).to("float64")
        for _ in range(2)
    )
    images = rng.standard_normal((4, 18, 15, 3))
    (logits, expected), (gpu_logits, found) = gradients(here, images, "cpu"), gradients(there, images, "cuda")
    assert_near(gpu_logits, logits)
    for got, want in zip(found, expected, strict=True):
        assert_near(got, want)


@pytest.mark.parametrize("shortcut", models.SHORTCUTS)
def test_a_step_neither_waits_nor_uploads(shortcut: str, emulated: Counter[str], rng: np.random.Generator) -> None:
    model = models.ResNet((1, 1), 4, widths=(4, 8), shortcut=shortcut, generator=rng).to("cuda")
    images, labels = (Tensor(a).to("cuda") for a in (np.ones((4, 8, 8, 3), np.float32), np.array([0, 1, 2, 3])))
    emulated.clear()
    F.cross_entropy(model(images), labels).backward()
    assert emulated["upload"] == emulated["sync"] == 0
    assert emulated["launch"] > 0


@pytest.mark.parametrize("corrected", [False, True])
def test_the_keras_net_beside_the_cpu(corrected: bool, cupy: Any, rng: np.random.Generator) -> None:
    here, there = (
        models.KerasResNet34(4, "cifar", generator=np.random.default_rng(0), corrected=corrected) for _ in range(2)
    )
    for model in (here, there):
        model.units = nn.Sequential(*list(model.units)[:4])  # a stage and the first unit of the next
        model.fc = nn.Linear(128, 4, generator=np.random.default_rng(1))
        model.to("float64")
    images = rng.standard_normal((4, 7, 9, 3))
    (logits, expected), (gpu_logits, found) = gradients(here, images, "cpu"), gradients(there, images, "cuda")
    assert_near(gpu_logits, logits)
    for got, want in zip(found, expected, strict=True):
        assert_near(got, want)
