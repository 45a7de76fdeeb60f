"""ResNet-18 trained on CIFAR-10, by minires and by PyTorch: one recipe, the same weights at first, the same batches."""

from __future__ import annotations

import time
from typing import Any

from benchmarks import gpu_cases, gpu_peers
from benchmarks.gpu_run import Run
from benchmarks.gpu_step import BASELINE, ours, theirs
from minires import data, optim
from minires.training import Average

RATE, TEST_BATCH = 0.1, 1000  # the highest rate of a one-cycle schedule; its momentum stays, as SGD's in steps.py


def part(run: Run, epochs: int, data_path: str) -> None:
    """Epoch by epoch, each of minires's beside PyTorch's, whose batches are those that minires's loader makes."""
    crop, flip, normalize = gpu_cases.steps(run.sizes._replace(image=32))
    transform, batch = data.Compose([crop, flip, normalize]), run.sizes.batches[0]
    train_set = data.CIFAR10(data_path, train=True, transform=transform).to("cuda")
    test_set = data.CIFAR10(data_path, train=False, transform=normalize).to("cuda")
    loader = data.DataLoader(train_set, batch, shuffle=True, drop_last=True)
    test_loader = data.DataLoader(test_set, TEST_BATCH)
    steps = epochs * len(loader)
    trainers: dict[str, Any] = {"minires TF32": ours(run, "tf32")}
    schedules = [optim.lr_scheduler.OneCycleLR(trainers["minires TF32"].optimizer, RATE, steps, cycle_momentum=False)]
    torch, reason = gpu_peers.find()
    if torch is None:
        run.note(f"{reason}: minires trains alone")
    else:
        trainers[BASELINE] = theirs(run, tf32=True, layout="channels_last")
        one_cycle = torch.optim.lr_scheduler.OneCycleLR
        schedules.append(one_cycle(trainers[BASELINE].optimizer, RATE, steps, cycle_momentum=False))
    run.note(f"trained on {train_set.name}: batch {batch}, one cycle up to {RATE} in {epochs} epochs")
    for epoch in range(1, epochs + 1):
        for (name, trainer), schedule in zip(trainers.items(), schedules, strict=True):
            loss, seconds = train(run, trainer, schedule, loader, epoch)
            accuracy = trainer.accuracy(test_loader)
            rate = trainer.optimizer.param_groups[0]["lr"]  # which the next step takes
            record = {"epoch": epoch, "contender": name, "seconds": seconds, "rate": rate}
            run.report.training.append(record | {"train_loss": loss, "test_acc": accuracy})
            speed = len(loader) * batch / seconds
            print(
                f"epoch {epoch}/{epochs}  {name}: loss {loss:.4f}  test {accuracy:.2f} %  {speed:,.0f} img/s",
                flush=True,
            )


def train(run: Run, trainer: Any, schedule: Any, loader: data.DataLoader, epoch: int) -> tuple[float, float]:
    """One epoch: its mean loss, and its seconds."""
    loss = Average()
    loader.set_epoch(epoch)
    run.wait()
    start = time.perf_counter()
    for images, labels in loader:
        loss.add(trainer.step(images.data, labels.data), len(images))
        schedule.step()
    run.wait()
    return loss.mean, time.perf_counter() - start
