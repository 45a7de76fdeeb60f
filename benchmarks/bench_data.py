"""Time an epoch of augmented 32x32 images (crop with padding 4, flip, normalise) beside torchvision and its loader.

    python -m benchmarks.bench_data

The images are CIFAR-10's if MINIRES_DATA holds them, else random ones of the same size. Before anything is timed, all
sides must hand over the same pixels with crops and flips left out. Without PyTorch, minires alone is timed.
"""

import argparse
import functools
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.steps import import_torch
from benchmarks.timing import interleaved, spread
from minires import data, environment, training
from minires.errors import ArgumentError, DataError

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def arguments() -> argparse.Namespace:
    parser = training.ArgumentParser(__doc__)
    add = parser.add_argument
    add("--images", type=training.positive, default=50_000, help="images in an epoch (default %(default)s)")
    add("--batch", type=training.positive, default=128, help="images in a batch (default %(default)s)")
    add("--rounds", type=training.positive, default=5, help="timed epochs of each contender (default %(default)s)")
    return parser.parse_args()


def pictures(count: int) -> tuple[np.ndarray, np.ndarray, str]:
    """uint8 images (N, 32, 32, 3), their labels, and where they come from."""
    try:
        found = data.CIFAR10(os.environ.get("MINIRES_DATA", "data"))
        if len(found) >= count:
            return found.images[:count], found.labels[:count], f"images of {found.name}"
    except DataError:
        pass
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, 10, count), "random images"


def minires_loader(images: np.ndarray, labels: np.ndarray, batch: int, workers: int, augment: bool) -> data.DataLoader:
    """Batches of minires: float32 (N, H, W, C)."""
    steps: list[Any] = [data.RandomCrop(32, 4), data.RandomHorizontalFlip()] if augment else []
    transform = data.Compose([*steps, data.Normalize(MEAN, STD)])
    examples = data.ImageDataset(images, labels, [str(number) for number in range(10)], transform)
    return data.DataLoader(examples, batch, shuffle=augment, num_workers=workers)


class Examples:
    """A data set as PyTorch has them, such as torchvision's CIFAR10: picture by picture, each transformed by itself."""

    def __init__(self, images: Sequence[Any], labels: np.ndarray, transform: Callable[[Any], Any]) -> None:
        self.images, self.labels, self.transform = images, labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self.images[index]), self.labels[index]


def pillow_loader(images: np.ndarray, labels: np.ndarray, batch: int, workers: int, augment: bool) -> Iterable[Any]:
    """torchvision's transforms on Pillow's pictures, as its CIFAR10 hands them over: float32 (N, C, H, W)."""
    torch, torchvision, _ = import_torch()
    from PIL import Image

    t = torchvision.transforms
    steps = [t.RandomCrop(32, padding=4), t.RandomHorizontalFlip()] if augment else []
    transform = t.Compose([Image.fromarray, *steps, t.ToTensor(), t.Normalize(MEAN, STD)])
    return torch.utils.data.DataLoader(Examples(images, labels, transform), batch, shuffle=augment, num_workers=workers)


def tensor_loader(images: np.ndarray, labels: np.ndarray, batch: int, workers: int, augment: bool) -> Iterable[Any]:
    """torchvision's transforms v2 on uint8 tensors, one by one: on a batch they would crop and flip all alike."""
    torch, *_ = import_torch()
    from torchvision.transforms import v2

    steps = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()] if augment else []
    transform = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    tensors = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return torch.utils.data.DataLoader(
        Examples(tensors, labels, transform), batch, shuffle=augment, num_workers=workers
    )


def channels_last(images: Any) -> np.ndarray:
    """A batch of any contender as (N, H, W, C)."""
    array = images.numpy()
    return array if array.shape[-1] == 3 else array.transpose(0, 2, 3, 1)


def check(plain: Mapping[str, Iterable[Any]], augmented: Mapping[str, Iterable[Any]]) -> None:
    """Without crops and flips all hand over the same pixels and labels; with them, batches of the same shapes."""
    reference: list[tuple[np.ndarray, np.ndarray]] = []
    worst = 0.0
    for name, loader in plain.items():
        batches = [(channels_last(x), y.numpy()) for x, y in loader]
        reference = reference or batches
        shapes = [(x.shape, x.dtype) for x, _ in reference]
        for given in batches, [(channels_last(x), y) for x, y in augmented[name]]:
            if [(x.shape, x.dtype) for x, _ in given] != shapes or shapes[0][1] != np.float32:
                raise ArgumentError(f"batches of {name} have other shapes or types, so nothing was timed")
        for (x, y), (expected, classes) in zip(batches, reference, strict=True):
            if (y != classes).any():
                raise ArgumentError(f"labels of {name} are others, so nothing was timed")
            worst = float(np.maximum(worst, np.abs(x - expected).max()))  # NaN stays
        if not worst <= 1e-6:  # values to 2.1: four roundings
            raise ArgumentError(f"pixels of {name} differ by {worst:.1e}, so nothing was timed")
    count = sum(len(x) for x, _ in reference)
    print(f"checked: {count:,} images of {len(plain)} contenders, not augmented, differ by at most {worst:.1e}")


def main() -> None:
    args = arguments()
    makers: dict[str, tuple[Callable[..., Iterable[Any]], int]] = {
        f"minires, {workers} threads": (minires_loader, workers) for workers in (0, 1, 2)
    }
    try:
        torch, *_ = import_torch()
    except ArgumentError as error:
        versions = f"minires alone: {error}"
    else:
        versions = f"PyTorch {torch.__version__}"
        makers |= {f"torchvision, {workers} processes": (pillow_loader, workers) for workers in (0, 2)}
        makers |= {f"torchvision v2, {workers} processes": (tensor_loader, workers) for workers in (0, 2)}
    print(environment.header(versions, environment.processor()))
    images, labels, source = pictures(args.images)

    def loaders(count: int, augment: bool) -> dict[str, Iterable[Any]]:
        few = images[:count], labels[:count], args.batch
        return {name: make(*few, workers, augment) for name, (make, workers) in makers.items()}

    check(loaders(1000, augment=False), loaders(1000, augment=True))
    epochs = {name: functools.partial(deque, loader, 0) for name, loader in loaders(len(images), augment=True).items()}
    medians = {}
    print(
        f"{len(images):,} {source}, batch {args.batch}, crop, flip, normalise: an epoch, median (least, greatest)"
        f" of {args.rounds}:"
    )
    for name, seconds in interleaved(epochs, args.rounds).items():
        medians[name], least, greatest = spread(seconds)
        speed = len(images) / medians[name]
        print(f"  {name:<27} {speed:8,.0f} images/s   {medians[name]:.3f} s ({least:.3f}, {greatest:.3f})")
    theirs = [median for name, median in medians.items() if name.startswith("torchvision")]
    if theirs:
        best = min(median for name, median in medians.items() if name.startswith("minires"))
        print(f"  the best of minires / the best of torchvision: {min(theirs) / best:.1f}")


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
