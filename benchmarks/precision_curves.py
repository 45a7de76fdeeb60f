"""Train ResNet-18 with exact convolutions and with fast ones (Winograd's F(4x4)): do the loss curves differ?

    python -m benchmarks.precision_curves --data-path DATA

Each precision is trained from the same three seeds: a pair has the same weights at first, the same order of images,
the same crops and flips. Curves are means over 20 steps. The precisions count as alike if at every step the gap
between their mean curves is at most the spread (greatest minus least over the seeds, a mean over 20 steps too) of
either. Writes precision_curves.json after every run, so that an interrupted one goes on, and precision_curves.png.
"""

import argparse
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import charts, report
from minires import data, environment, models, optim, precision, training
from minires.errors import ArgumentError
from minires.files import publish
from minires.nn import functional as F

PRECISIONS = ("exact", "fast")
WINDOW = 20  # steps that curves and spreads are averaged over
SETTINGS = ("model", "steps", "batch", "lr", "data")  # what makes curves of two runs comparable


def arguments() -> argparse.Namespace:
    parser = training.ArgumentParser(__doc__)
    add = parser.add_argument
    add("--model", default="resnet18", help=f"one of: {', '.join(models.BUILDERS)} (default %(default)s)")
    add("--steps", type=training.positive, default=200, help="training steps of a run (default %(default)s)")
    add("--batch", type=training.positive, default=32, help="images a step (default %(default)s)")
    add("--lr", type=float, default=0.01, help="learning rate of SGD, momentum 0.9 (default %(default)s)")
    add("--seeds", type=training.positive, default=3, help="runs of each precision (default %(default)s)")
    add("--data-path", default=os.environ.get("MINIRES_DATA", "data"), help="CIFAR-10 (default: $MINIRES_DATA or data)")
    add("--output-dir", type=Path, default=Path("docs/images"), help="where file and picture go (default %(default)s)")
    return parser.parse_args()


def train(args: argparse.Namespace, seed: int, images: data.CIFAR10) -> list[float]:
    """The loss of each step, before it."""
    model = models.build(args.model, num_classes=10, stem="cifar", generator=np.random.default_rng(seed))
    optimizer = optim.SGD(model.parameters(), args.lr, momentum=0.9, weight_decay=5e-4)
    crop, flip = data.RandomCrop(32, 4, seed=seed), data.RandomHorizontalFlip(seed=seed)
    images.transform = data.Compose([crop, flip, data.Normalize(*data.NORMALIZATION["cifar10"])])
    loader = data.DataLoader(images, args.batch, shuffle=True, drop_last=True, seed=seed)
    epochs = itertools.chain.from_iterable(itertools.repeat(loader))
    losses = []
    for x, y in itertools.islice(epochs, args.steps):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def running(values: np.ndarray) -> np.ndarray:
    """Means over WINDOW steps around each, fewer at both ends; over the last axis."""
    totals = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)
    steps = np.arange(values.shape[-1])
    first = np.maximum(steps - WINDOW // 2, 0)
    last = np.minimum(steps + WINDOW // 2, len(steps))
    return (totals[..., last] - totals[..., first]) / (last - first)


def compare(curves: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The gap between the mean curves at each step, and the spread over the seeds, the lesser of both precisions'.

    `curves` holds the losses (seeds, steps) of each precision.
    """
    smooth = {name: running(losses) for name, losses in curves.items()}
    gap = np.abs(smooth["fast"].mean(axis=0) - smooth["exact"].mean(axis=0))
    spreads = [running(np.ptp(losses, axis=0)) for losses in smooth.values()]
    return gap, np.minimum(*spreads)


def load(path: Path, settings: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Curves that are there already, by precision and seed. Raises ArgumentError for those of other settings."""
    if not path.exists():
        return {name: {} for name in PRECISIONS}
    content = json.loads(path.read_text(encoding="utf-8"))
    other = [
        f"{k} was {content['settings'].get(k)}, is {v}" for k, v in settings.items() if content["settings"].get(k) != v
    ]
    if other:
        raise ArgumentError(f"{path} holds curves of other settings: {'; '.join(other)}; name another --output-dir")
    return content["curves"]


def save(path: Path, content: dict[str, Any]) -> None:
    """Write the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.tmp").open("wb") as file:
        file.write(json.dumps(content, indent=1).encode())
        publish(file, path)


def draw(curves: dict[str, np.ndarray], run: report.Report, title: str) -> Any:
    """Both precisions' smoothed curves with the band of their seeds, and the gap beside the spread."""
    figure = charts.figure(11, 4.6, title, run)
    left, right = figure.subplots(1, 2)
    steps = np.arange(1, curves["exact"].shape[1] + 1)
    for colour, (name, losses) in zip(charts.COLOURS, curves.items(), strict=False):
        smooth = running(losses)
        left.plot(steps, smooth.mean(axis=0), color=colour, label=f"{name}, mean of {len(losses)} seeds")
        left.fill_between(steps, smooth.min(axis=0), smooth.max(axis=0), color=colour, alpha=0.2, linewidth=0)
    gap, spread = compare(curves)
    right.plot(steps, spread, color=charts.COLOURS[2], label="seed-to-seed spread")
    right.plot(steps, gap, color=charts.COLOURS[3], label="gap between the precisions")
    left.set(xlabel="step", ylabel=f"cross-entropy, mean over {WINDOW} steps")
    right.set(xlabel="step", ylabel="difference in cross-entropy", ylim=(0, None))
    for axes in (left, right):
        charts.tidy(axes)
        axes.legend(frameon=False)
    return figure


def main() -> None:
    args = arguments()
    images = data.CIFAR10(args.data_path)
    args.data = images.name
    settings = {name: getattr(args, name) for name in SETTINGS}
    path = args.output_dir / "precision_curves.json"
    curves = load(path, settings)
    print(environment.header(environment.processor(), "precision exact and fast", f"data {images.name}"), flush=True)
    fingerprint = report.fingerprint("exact and fast")
    for seed, name in itertools.product(range(args.seeds), PRECISIONS):
        if str(seed) in curves[name]:
            print(f"seed {seed}, {name}: in {path} already")
            continue
        start = time.perf_counter()
        with precision(name):
            losses = curves[name][str(seed)] = train(args, seed, images)
        save(path, {"settings": settings, "fingerprint": fingerprint, "curves": curves})
        seconds, last = time.perf_counter() - start, np.mean(losses[-WINDOW:])
        print(f"seed {seed}, {name}: loss {losses[0]:.4f}, at the end {last:.4f}, {seconds:.0f} s", flush=True)
    arrays = {name: np.array([curves[name][str(seed)] for seed in range(args.seeds)]) for name in PRECISIONS}
    gap, spread = compare(arrays)
    within = int((gap <= spread).sum())
    print(
        f"gap of the mean curves over the spread of {args.seeds} seeds: {np.median(gap / spread):.2f} (median),"
        f" {(gap / spread).max():.2f} (greatest); within the spread at {within} of {args.steps} steps"
    )
    print("alike: at every step" if within == args.steps else "NOT alike at every step")
    title = f"{args.model} on {images.name}, batch {args.batch}: exact and fast convolutions"
    draw(arrays, report.Report("precision_curves", fingerprint), title).savefig(path.with_suffix(".png"), dpi=130)
    print(f"Wrote {path} and {path.with_suffix('.png')}")


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
