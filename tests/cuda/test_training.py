"""Training steps of a residual net on the GPU, each beside the CPU's from the same state; what a step may not do."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from minires import Tensor, data, device, models, nn, no_grad, optim, training
from minires.memory import is_whole
from minires.nn import functional as F

STEPS, BATCH = 20, 8
LOSS = 1e-5  # relative
GRADIENT = 1e-5  # relative L2 distance of each parameter's gradient, where no ReLU's sign differs


def images(rng: np.random.Generator, count: int) -> data.ImageDataset:
    """Random images of four classes, each with a pattern of its own, augmented as CIFAR-10's are."""
    labels = rng.integers(0, 4, count)
    patterns = rng.integers(0, 200, (4, 16, 16, 3))
    pixels = np.clip(patterns[labels] + rng.integers(0, 56, (count, 16, 16, 3)), 0, 255).astype(np.uint8)
    crop, flip = data.RandomCrop(16, 2, seed=1), data.RandomHorizontalFlip(seed=1)
    transform = data.Compose([crop, flip, data.Normalize(*data.NORMALIZATION["cifar10"])])
    return data.ImageDataset(pixels, labels, list("abcd"), transform)


class Run:
    """A net of three stages with its optimizer, on a device."""

    def __init__(self, place: str) -> None:
        generator = np.random.default_rng(0)
        self.model = models.ResNet((1, 1, 1), 4, widths=(16, 32, 64), generator=generator).to(place)
        self.optimizer = optim.SGD(self.model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)

    def take_over(self, other: Run) -> None:
        self.model.load_state_dict(other.model.state_dict())
        self.optimizer.load_state_dict(other.optimizer.state_dict())

    def backward(self, x: Tensor, y: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        return loss

    def gradients(self) -> list[np.ndarray]:
        return [device.to_device(p.grad.data, "cpu") for p in self.model.parameters()]


def signs(run: Run, x: Tensor) -> np.ndarray:
    """What each ReLU of the net lets through, in a forward pass that changes nothing: it follows a batch norm."""
    seen: list[np.ndarray] = []
    state = {name: value.clone() for name, value in run.model.state_dict().items()}
    handles = [
        module.register_forward_hook(lambda module, args, y: seen.append(y.to("cpu").numpy().ravel() > 0))
        for name, module in run.model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and "downsample" not in name
    ]
    with no_grad():
        run.model(x)
    for handle in handles:
        handle.remove()
    run.model.load_state_dict(state)
    assert len(handles) == len(seen) == 7
    return np.concatenate(seen)


def test_twenty_steps_beside_the_cpu(cupy: Any, rng: np.random.Generator) -> None:
    """Loss, gradients and what the optimizer makes of them, from the CPU run's state at each step."""
    here, there = Run("cpu"), Run("cuda")
    dataset = images(rng, STEPS * BATCH)
    loaders = [data.DataLoader(d, BATCH, shuffle=True, seed=5) for d in (dataset, dataset.to("cuda"))]
    flips, losses, loss_errors, gradient_errors = [], [], [], []
    for (x, y), (gx, gy) in zip(*loaders, strict=True):
        np.testing.assert_array_equal(gx.to("cpu").numpy(), x.numpy())
        there.take_over(here)
        flips.append(int(np.sum(signs(here, x) != signs(there, gx))))
        losses.append(here.backward(x, y).item())
        loss_errors.append(abs(there.backward(gx, gy).item() / losses[-1] - 1))
        pairs = zip(there.gradients(), here.gradients(), strict=True)
        gradient_errors.append(max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs))
        here.optimizer.step()
        there.optimizer.step()
        for name, value in there.model.state_dict().items():
            want = here.model.state_dict()[name].numpy()
            if not flips[-1]:
                limit = 1e-6 * max(1, np.abs(want).max())
                np.testing.assert_allclose(value.to("cpu").numpy(), want, rtol=0, atol=limit, err_msg=name)
    for name, values in (("flips", flips), ("loss", loss_errors), ("gradients", gradient_errors)):
        print(f"{name}: {sum(values)} in {STEPS} steps" if name == "flips" else f"{name}: at most {max(values):.1e}")
    print(f"loss of the steps: {losses[0]:.3f} to {losses[-1]:.3f}")
    assert max(loss_errors) <= LOSS
    assert all(error <= GRADIENT for error, flipped in zip(gradient_errors, flips, strict=True) if not flipped)
    assert sum(map(bool, flips)) <= STEPS // 4  # else the gradients were compared nowhere
    assert losses[-1] < losses[0]


def test_no_step_waits_or_copies(emulated: Counter[str], rng: np.random.Generator) -> None:
    """Batches, forward, backward, update and the running averages: launches alone. Reading the average waits."""
    run, dataset = Run("cuda"), images(rng, 4 * BATCH).to("cuda")
    loader = data.DataLoader(dataset, BATCH, shuffle=True)
    loss, right = training.Average(), training.Average()
    emulated.clear()
    for x, y in loader:
        batch_loss = run.backward(x, y)
        run.optimizer.step()
        loss.add(batch_loss, len(x))
        with no_grad():
            right.add(training.accuracy(run.model(x), y), len(x))
    assert emulated["sync"] == 0, emulated
    assert emulated["upload"] == 1  # the order of the epoch
    assert emulated["launch of augment_uint8"] == 4
    assert emulated["launch of sgd_foreach"] == 4  # all parameters at once
    assert all(is_whole(p.grad.data) for p in run.model.parameters() if p.ndim in (1, 4))  # taken over, not copied
    assert np.isfinite(loss.mean)
    assert emulated["sync"] == 1


def test_a_loss_that_is_no_number_is_noticed_when_it_is_read(cupy: Any) -> None:
    from minires.errors import DivergedError

    loss = training.Average()
    for value in (1.0, np.nan, 1.0):
        loss.add(Tensor(np.float32(value)).to("cuda"), 2)
    with pytest.raises(DivergedError, match="the loss is nan after 6 examples"):
        training.check_finite(loss)
